//! What a step asks of Metal's command queue, next to candle's operations one by one; and that programs keep their
//! values apart.

use lazytune::executor::candle::PlainTarget;
use lazytune::executor::metal::{
    Buffer, Command, Dispatches, MetalTarget, Program, Region, check, record_alone,
};
use lazytune::graph::DType;
use lazytune::model::{ModelConfig, Trained, families};
use lazytune::optim::AdamW;
use lazytune::plan::Plan;
use lazytune::train::{StepBuilder, StepKind};

use crate::plans::{cases, plans};
use crate::training::spec;

/// SmolLM2-135M's numbers.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000, "tie_word_embeddings": true
}"#;

fn builder(layers: usize) -> StepBuilder {
    let text = CONFIG.replace("\"num_hidden_layers\": 30", &format!("\"num_hidden_layers\": {layers}"));
    let config = ModelConfig::parse(text.as_bytes()).unwrap();
    let layers = spec(8).resolve(&config.linear_modules()).unwrap();
    StepBuilder {
        decoder: families::decoder(&config),
        trained: Trained::Adapters(layers.into_iter().map(|layer| (layer.path.clone(), layer)).collect()),
        dtype: DType::F32,
        optimizer: AdamW { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 },
        max_positions: 512,
        memory_budget: None,
    }
}

/// Values that are read after the step.
fn outputs(plan: &Plan, program: &Program) -> Vec<(usize, Region)> {
    let of = |&root: &usize| (lazytune::plan::storage_of(&plan.graph, root), program.regions[root].unwrap());
    plan.graph.roots()[..plan.read_back].iter().map(of).collect()
}

#[test]
fn a_step_of_smollm2_takes_these_dispatches() {
    let builder = builder(30);
    let plan = builder.compile(StepKind::Only, 4, 512, &MetalTarget).unwrap();
    let program = record_alone(&plan, f64::INFINITY).unwrap();
    check(&program, &outputs(&plan, &program)).unwrap();
    let plain = builder.compile(StepKind::Only, 4, 512, &PlainTarget).unwrap();
    let kernel = |name: &str| {
        let is =
            |command: &Command| matches!(command, Command::Launch { launch, .. } if launch.kernel == name);
        program.commands.iter().filter(|recorded| is(&recorded.command)).count()
    };
    assert_eq!([kernel("adamw"), kernel("sum_of_squares"), kernel("sum_partials")], [1; 3]);
    insta::assert_snapshot!(format!(
        "{} batches\nlazytune: {}\ncandle's operations one by one: {}",
        plan.batches.len(),
        Dispatches::of(&program),
        Dispatches::eager(&plain)
    ));
    // Buffers of whole values cost little more than an arena.
    let (shared, arena) = (program.bytes() as f64, plan.arena_bytes as f64);
    assert!(
        shared < 1.25 * arena,
        "{shared} bytes in {} buffers, {arena} in an arena",
        program.buffers.len()
    );
}

/// Programs of all ways to train keep their values apart, and update with one dispatch.
#[test]
fn commands_between_barriers_are_independent() {
    for case in cases() {
        for plan in plans(&case, 0.1, DType::F32, &MetalTarget) {
            let program = record_alone(&plan, 1e-6).unwrap();
            check(&program, &outputs(&plan, &program))
                .unwrap_or_else(|error| panic!("{}: {error}", case.display()));
            let buffers = program.command_buffers();
            assert_eq!(buffers.last().map(|batches| batches.end), Some(plan.batches.len()));
            assert!(buffers.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}

/// A step of one layer.
fn small() -> (Plan, Program) {
    let plan = builder(1).compile(StepKind::Only, 1, 32, &MetalTarget).unwrap();
    let program = record_alone(&plan, f64::INFINITY).unwrap();
    (plan, program)
}

#[test]
fn a_missing_barrier_is_found() {
    let (plan, program) = small();
    let outputs = outputs(&plan, &program);
    check(&program, &outputs).unwrap();
    let barriers: Vec<usize> = (0..program.commands.len())
        .filter(|&index| program.commands[index].command == Command::Barrier)
        .collect();
    assert!(barriers.len() > 20);
    for barrier in barriers {
        let mut mutant = program.clone();
        mutant.commands.remove(barrier);
        assert!(check(&mutant, &outputs).is_err(), "nobody misses the barrier {barrier}");
    }
}

/// Puts what lies in one buffer into another one.
fn moved(region: &mut Region, from: usize, to: usize) {
    if region.buffer == Buffer::Own(from) {
        region.buffer = Buffer::Own(to);
    }
}

#[test]
fn a_buffer_shared_too_early_is_found() {
    let (plan, program) = small();
    let outputs = outputs(&plan, &program);
    // Values that share a buffer lie apart in time; whole buffers never do, or they would be one.
    for to in 0..program.buffers.len() - 1 {
        let mut mutant = program.clone();
        for recorded in &mut mutant.commands {
            recorded.touches.iter_mut().for_each(|touch| moved(&mut touch.region, to + 1, to));
        }
        assert!(check(&mutant, &outputs).is_err(), "buffers {to} and {} could be one", to + 1);
    }
}
