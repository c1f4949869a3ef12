//! What bf16 weights and activations cost in accuracy.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::Path;

use lazytune::config;
use lazytune::graph::DType;
use lazytune::train::model::OpenModel;
use lazytune::train::setup::{Setup, setup};
use support::block_on;

const STEPS: usize = 60;

/// The quickstart's run in the given type.
async fn run(dtype: &str) -> Setup {
    let changes =
        [format!("model.dtype={dtype}"), "model.threads=2".to_owned(), format!("train.max_steps={STEPS}")];
    let config = config::load_with_color(Path::new("configs/quickstart.toml"), &changes, false).unwrap();
    let model = OpenModel::open(&config, None).unwrap();
    setup(config, model, None, &mut |_| {}).await.unwrap()
}

/// Losses as the run reports them, and the loss of its adapters on the validation rows, computed in f32.
async fn trained(dtype: &str, exact: &mut Setup) -> (Vec<f64>, f64) {
    let mut setup = run(dtype).await;
    let mut losses = Vec::new();
    for _ in 0..STEPS {
        let window = setup.loader.next_window().await.unwrap();
        losses.push(setup.trainer.step(&window, 0.0).await.unwrap().loss);
    }
    let mut values = setup.trainer.trained_values().await.unwrap();
    assert!(values.values().all(|value| value.tensor.dtype == DType::F32), "adapters are kept in f32");
    values.extend(setup.trainer.moments().await.unwrap());
    exact.trainer.restore(STEPS, values).await.unwrap();
    (losses, exact.trainer.evaluate(&exact.validation, 0.0).await.unwrap().eval_loss)
}

#[test]
fn adapters_trained_in_bf16_are_as_good_as_those_trained_in_f32() {
    block_on(async {
        let mut exact = run("f32").await;
        let untrained = exact.trainer.evaluate(&exact.validation, 0.0).await.unwrap().eval_loss;
        let (single, single_loss) = trained("f32", &mut exact).await;
        let (half, half_loss) = trained("bf16", &mut exact).await;
        assert!(single_loss < 0.97 * untrained, "{untrained} -> {single_loss}: nothing was learnt");
        let difference = (half_loss - single_loss).abs() / single_loss;
        assert!(difference < 5e-3, "f32 ends at {single_loss}, bf16 at {half_loss}");
        for (step, (single, half)) in single.iter().zip(&half).enumerate() {
            assert!((single - half).abs() < 0.03 * single, "step {step}: f32 reports {single}, bf16 {half}");
        }
    });
}
