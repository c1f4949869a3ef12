//! Steps of the golden model without a run directory: a builder, initial adapters, a loader.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lazytune::adapter::{AdapterSpec, LoraPair, TargetModules};
use lazytune::config::{DataSection, TrainOn};
use lazytune::data::{Dataset, Example, Loader, LoaderOptions, RowSource};
use lazytune::executor::HostTensor;
use lazytune::graph::DType;
use lazytune::model::{Trained, lora_a_name, lora_b_name};
use lazytune::optim::AdamW;
use lazytune::train::model::OpenModel;
use lazytune::train::{NamedTensors, StepBuilder};

use super::workspace::golden;

pub fn model() -> OpenModel {
    OpenModel::named(golden("gqa_tied/base").to_str().unwrap(), None).unwrap()
}

pub fn spec() -> AdapterSpec {
    AdapterSpec {
        r: 5,
        alpha: 10.0,
        dropout: 0.0,
        use_rslora: false,
        use_dora: false,
        target_modules: TargetModules::AllLinear,
        layers_to_transform: None,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
        modules_to_save: Vec::new(),
        trainable_token_indices: BTreeMap::new(),
    }
}

pub fn builder(model: &OpenModel, trained: Trained) -> StepBuilder {
    let optimizer = AdamW { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 };
    StepBuilder {
        decoder: model.decoder.clone(),
        trained,
        dtype: DType::F32,
        optimizer,
        max_positions: 64,
        memory_budget: None,
    }
}

pub fn adapters(model: &OpenModel, spec: &AdapterSpec) -> Trained {
    let layers = spec.resolve(&model.source.config.linear_modules()).unwrap();
    Trained::Adapters(layers.into_iter().map(|layer| (layer.path.clone(), layer)).collect())
}

pub fn loader(lengths: &[usize]) -> Loader {
    let example = |(row, &length): (usize, &usize)| Example {
        input_ids: (0..length).map(|at| (at * 7 + row) as u32 % 60 + 3).collect(),
        supervised: vec![true; length],
        source: RowSource { file: Arc::from(Path::new("rows.jsonl")), row: row + 1 },
        content_hash: row as u64,
    };
    let section = DataSection { max_length: 64, train_on: TrainOn::All, ..DataSection::default() };
    let dataset = Dataset::from_examples(lengths.iter().enumerate().map(example), &section);
    let options = LoaderOptions {
        batch_size: 1,
        gradient_accumulation_steps: 1,
        shuffle: false,
        packing: false,
        seed: 1,
        max_length: 64,
    };
    Loader::new(Arc::new(dataset), options).unwrap()
}

pub fn initial_values(trained: &Trained) -> NamedTensors {
    let Trained::Adapters(adaptation) = trained else { unreachable!() };
    let mut values = NamedTensors::new();
    for (path, layer) in &adaptation.pairs {
        let pair = LoraPair::initial(1, layer);
        let tensor = |dims: [usize; 2], values| HostTensor::f32(&dims, values).unwrap();
        values.insert(lora_a_name(path), tensor([layer.rank, layer.in_features], pair.a));
        values.insert(lora_b_name(path), tensor([layer.out_features, layer.rank], pair.b));
    }
    values
}
