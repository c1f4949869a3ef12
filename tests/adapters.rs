//! Adapters of every kind on the real binary: continued, merged, used for answers, refused; and what DoRA's step costs.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use lazytune::adapter::AdapterSpec;
use lazytune::executor::{CpuOptions, CpuTarget, HostTensor, StepInputs};
use lazytune::graph::{ComputationGraph, DType, Operation};
use lazytune::model::{Parameters, Trained};
use lazytune::train::model::OpenModel;
use lazytune::train::{PlannedMemory, StepKind};
use serde_json::Value;
use support::steps::{adapters, builder, model, spec};
use support::workspace::{Outcome, Workspace, field, golden, steps, tensors};
use support::{block_on, compute, executor, two_threads};

/// Adapters of PEFT.
const ADAPTERS: [&str; 10] = [
    "gqa_tied",
    "untied_odd",
    "mha_patterns",
    "dora",
    "saved_modules",
    "saved_table",
    "embedding",
    "embedding_dora",
    "tokens_tied",
    "tokens_untied",
];

/// Trains on a golden's rows, with the given lines below `[adapter]`.
fn train(workspace: &Workspace, base: &str, case: &str, adapter: &str, run: &str) -> Outcome {
    let text = format!(
        "[model]\npath = {base:?}\nthreads = 2\n[data]\ntrain = [{:?}]\nvalidation = \"none\"\nshuffle = false\n\
         max_length = 32\n[adapter]\n{adapter}\n[optimizer]\nlearning_rate = 1e-2\n[schedule]\nname = \"constant\"\n\
         [train]\nbatch_size = 8\nmax_steps = 3\nsave_steps = 0\n",
        golden(case).join("rows.jsonl")
    );
    workspace.write("run.toml", text);
    workspace.run(&["train", "run.toml", "--run-dir", run])
}

fn base(case: &str) -> String {
    golden(case).join("base").to_str().unwrap().to_owned()
}

fn init(case: &str) -> String {
    format!("init = {:?}", golden(case).join("adapter"))
}

fn losses(workspace: &Workspace, run: &str) -> Vec<f64> {
    field(&steps(&workspace.path(run).join("metrics.jsonl")), "loss")
}

fn merge(workspace: &Workspace, case: &str, adapter: &str, out: &str) -> Outcome {
    workspace.run(&["merge", "--model", &base(case), "--adapter", adapter, "--out", out])
}

#[track_caller]
fn close(left: f64, right: f64) {
    assert!((left / right - 1.0).abs() < 1e-4, "{left} is not {right}");
}

#[test]
fn a_continued_run_starts_at_the_loss_of_its_adapter() {
    for case in ADAPTERS {
        let workspace = Workspace::new();
        train(&workspace, &base(case), case, &init(case), "continued").exits(0);
        let adapter = golden(case).join("adapter");
        merge(&workspace, case, adapter.to_str().unwrap(), "merged").exits(0);
        let merged = workspace.path("merged").to_str().unwrap().to_owned();
        // A fresh adapter changes nothing before its first step.
        train(&workspace, &merged, case, "r = 2", "fresh").exits(0);
        let (continued, fresh) = (losses(&workspace, "continued"), losses(&workspace, "fresh"));
        close(continued[0], fresh[0]);
        assert!(continued[2] < continued[0], "{case} does not learn");
    }
}

#[test]
fn what_a_run_writes_is_where_the_next_one_starts() {
    for case in ["dora", "saved_modules", "saved_table", "embedding_dora", "tokens_tied", "tokens_untied"] {
        let workspace = Workspace::new();
        train(&workspace, &base(case), case, &init(case), "first").exits(0);
        let next = "init = \"first/adapter\"";
        train(&workspace, &base(case), case, next, "second").exits(0);
        // The loss after three steps is that before the fourth.
        assert!(losses(&workspace, "second")[0] < losses(&workspace, "first")[2], "{case}");
        let shapes = |run: &str| -> Vec<(String, Vec<usize>)> {
            let all = tensors(&workspace.path(run).join("adapter/adapter_model.safetensors"));
            all.into_iter().map(|(name, (shape, _))| (name, shape)).collect()
        };
        assert_eq!(shapes("first"), shapes("second"));
        let config = |run: &str| -> Value {
            let path = workspace.path(run).join("adapter/adapter_config.json");
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
        };
        assert_eq!(config("first"), config("second"));
        for key in
            ["use_dora", "modules_to_save", "target_modules", "r", "lora_alpha", "trainable_token_indices"]
        {
            let peft = golden(case).join("adapter/adapter_config.json");
            let peft: Value = serde_json::from_slice(&std::fs::read(peft).unwrap()).unwrap();
            assert_eq!(config("first")[key], peft[key], "{case}: {key}");
        }
    }
}

#[test]
fn contradictions_with_the_adapter_are_refused_by_name() {
    let workspace = Workspace::new();
    let case = "dora";
    for (key, value) in [
        ("r", "4"),
        ("alpha", "1.0"),
        ("use_rslora", "true"),
        ("use_dora", "false"),
        ("target_modules", "[\"q_proj\"]"),
        ("layers_to_transform", "[1]"),
        ("rank_pattern", "{ q_proj = 2 }"),
        ("alpha_pattern", "{ q_proj = 2.0 }"),
        ("modules_to_save", "[\"lm_head\"]"),
    ] {
        let adapter = format!("{key} = {value}\n{}", init(case));
        let refused = train(&workspace, &base(case), case, &adapter, "run").exits(2);
        refused.says(&[&format!("adapter.{key} contradicts the adapter in"), "adapter_config.json"]);
        assert!(!workspace.path("run").exists());
    }
    let agreeing =
        format!("r = 3\nalpha = 5\nuse_dora = true\ntarget_modules = \"all-linear\"\n{}", init(case));
    train(&workspace, &base(case), case, &agreeing, "agreeing").exits(0);
    let dropout = format!("dropout = 0.5\n{}", init(case));
    train(&workspace, &base(case), case, &dropout, "dropout").exits(0);
    assert_ne!(losses(&workspace, "agreeing")[0], losses(&workspace, "dropout")[0]);
    let again = ["train", "dropout/config.toml", "--run-dir", "again"];
    workspace.run(&again).exits(0);
    assert_eq!(losses(&workspace, "dropout"), losses(&workspace, "again"));
}

#[test]
fn a_fresh_adapter_changes_nothing_whatever_its_dropout() {
    let workspace = Workspace::new();
    let case = "saved_modules";
    let start = |run: &str, adapter: &str| {
        train(&workspace, &base(case), case, adapter, run).exits(0);
        losses(&workspace, run)[0]
    };
    let plain = start("plain", "");
    close(start("dora", "use_dora = true\ndropout = 0.5"), plain);
    close(start("saved", "modules_to_save = [\"lm_head\", \"norm\", \"embed_tokens\"]"), plain);
    let ends = "target_modules = [\"embed_tokens\", \"lm_head\", \"q_proj\"]";
    close(start("ends", ends), plain);
    close(start("ends_dora", &format!("use_dora = true\n{ends}")), plain);
    close(start("ends_dropout", &format!("dropout = 0.5\n{ends}")), plain);
    close(start("ends_dora_dropout", &format!("dropout = 0.5\nuse_dora = true\n{ends}")), plain);
}

#[test]
fn what_cannot_be_trained_or_merged_is_refused() {
    let workspace = Workspace::new();
    let case = "saved_modules";
    let refused = |adapter: &str, says: &[&str]| {
        train(&workspace, &base(case), case, adapter, "run").exits(2).says(says);
        assert!(!workspace.path("run").exists());
    };
    refused("modules_to_save = [\"head\", \"nothing\"]", &["\"nothing\" is no module", "lm_head"]);
    refused("modules_to_save = [\"\"]", &["a module name is empty"]);
    refused("modules_to_save = [\"_proj\"]", &["is in target_modules and in modules_to_save"]);
}

#[test]
fn a_tied_model_comes_apart_when_one_side_is_adapted() {
    let workspace = Workspace::new();
    let case = "saved_table";
    train(&workspace, &base(case), case, &init(case), "tied")
        .exits(0)
        .says(&["output head is its token table"]);
    let adapter = golden(case).join("adapter");
    merge(&workspace, case, adapter.to_str().unwrap(), "merged").exits(0).says(&["a table of its own"]);
    let config: Value =
        serde_json::from_slice(&std::fs::read(workspace.path("merged/config.json")).unwrap()).unwrap();
    assert_eq!(config["tie_word_embeddings"], false);
    let of = |path: std::path::PathBuf| tensors(&path.join("model.safetensors"));
    let (merged, plain) = (of(workspace.path("merged")), of(golden(case).join("base")));
    assert_eq!(merged["lm_head.weight"], plain["model.embed_tokens.weight"]);
    assert_ne!(merged["model.embed_tokens.weight"], plain["model.embed_tokens.weight"]);
    let rows =
        merge(&workspace, "tokens_tied", golden("tokens_tied/adapter").to_str().unwrap(), "rows").exits(0);
    assert!(!rows.stderr.contains("a table of its own"));
}

#[test]
fn answers_with_an_adapter_are_those_of_the_merged_model() {
    let workspace = support::prepared::workspace();
    for (run, keys) in [
        ("dora", &["adapter.use_dora=true"][..]),
        ("ends", &["adapter.use_dora=true", "adapter.target_modules=[\"embed_tokens\", \"lm_head\"]"]),
        ("saved", &["adapter.modules_to_save=[\"lm_head\", \"norm\"]"]),
    ] {
        let mut arguments =
            vec!["train", "run.toml", "--run-dir", run, "--set", "optimizer.learning_rate=1e-2"];
        keys.iter().for_each(|key| arguments.extend(["--set", key]));
        workspace.run(&arguments).exits(0);
        let (adapter, merged) = (format!("{run}/adapter"), format!("{run}-merged"));
        workspace.run(&["merge", "--model", "base", "--adapter", &adapter, "--out", &merged]).exits(0);
        let answer = |model: &[&str]| {
            let fixed = ["generate", "--threads", "2", "--max-tokens", "12", "--prompt", "Define love"];
            workspace.run(&[&fixed, model].concat()).exits(0).stdout
        };
        let adapted = answer(&["--model", "base", "--adapter", &adapter]);
        let base = answer(&["--model", "base"]);
        assert_eq!(adapted, answer(&["--model", &merged]), "{run}");
        assert_ne!(adapted, base, "{run} changes nothing");
        let both = answer(&["--model", "base", "--adapter", &adapter, "--compare"]);
        assert_eq!(both, format!("--- base\n{base}--- adapted\n{adapted}"));
    }
}

#[test]
fn dora_keeps_no_second_copy_of_a_weight_and_builds_none() {
    let model = model();
    let target = CpuTarget(CpuOptions::default());
    let plan = |use_dora| {
        let trained = adapters(&model, &AdapterSpec { use_dora, ..spec() });
        builder(&model, trained).compile(StepKind::Only, 3, 19, &target).unwrap()
    };
    let (plain, dora) = (plan(false), plan(true));
    assert_eq!(PlannedMemory::of(&plain, &target).weights, PlannedMemory::of(&dora, &target).weights);
    let specs = model.source.config.tensor_specs();
    let weights: Vec<_> =
        specs.iter().map(|spec| spec.shape.as_slice()).filter(|shape| shape.len() == 2).collect();
    for &index in dora.batches.iter().flatten() {
        let node = &dora.graph.nodes()[index];
        let update = matches!(node.operation, Operation::AdamW(_));
        let dims = node.tensor_type().shape.dims().to_vec();
        assert!(update || !weights.contains(&dims.as_slice()), "{:?} makes {dims:?}", node.operation);
    }
}

/// The loss of a head with dropout in front of its pair, whose logits are never built, is that of the logits.
#[test]
fn a_head_with_dropout_gives_the_loss_of_its_logits() {
    let (rows, width, seq) = (1, 16, 4);
    for case in ["embedding", "embedding_dora"] {
        let model = OpenModel::named(golden(case).join("base").to_str().unwrap(), None).unwrap();
        let (trained, values) = model.adapter(&golden(case).join("adapter")).unwrap();
        let Trained::Adapters(mut adaptation) = trained else { unreachable!() };
        adaptation.pairs.values_mut().for_each(|pair| pair.dropout = 0.5);
        let trained = Trained::Adapters(adaptation);
        let executor = executor(two_threads());
        block_on(executor.set_weights(model.weight_loader())).unwrap();
        block_on(executor.set_states(values.into_iter().collect())).unwrap();
        let graph = ComputationGraph::new();
        let seed = graph.input("dropout_seed", &[2], DType::U32);
        let parameters = Parameters::new(&graph, &trained, DType::F32, Some(seed));
        let x = graph.input("x", &[rows * seq, width], DType::F32);
        let targets = graph.input("targets", &[rows * seq], DType::U32);
        let losses = model.decoder.losses(&parameters, &x, &targets);
        let logits = parameters.linear(&x, "lm_head", model.decoder.vocab, width, false);
        let hidden: Vec<f32> = (0..seq * width).map(|at| ((at * 37 % 19) as f32 - 9.0) / 5.0).collect();
        let inputs = StepInputs::from([
            ("dropout_seed".into(), HostTensor::u32(&[2], vec![3, 4]).unwrap()),
            ("x".into(), HostTensor::f32(&[seq, width], hidden).unwrap()),
            ("targets".into(), HostTensor::u32(&[seq], vec![5, 9, 0, 52]).unwrap()),
        ]);
        let found = compute(&executor, &[losses, logits], &inputs, false);
        let (losses, logits) = (found[0].to_f64(), found[1].to_f64());
        for ((row, loss), target) in logits.chunks(model.decoder.vocab).zip(losses).zip([5, 9, 0, 52]) {
            let sum: f64 = row.iter().map(|logit| logit.exp()).sum();
            close(loss, sum.ln() - row[target]);
        }
    }
}
