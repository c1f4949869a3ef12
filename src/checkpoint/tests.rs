use std::collections::BTreeMap;
use std::fs;

use serde_json::json;

use super::*;
use crate::error::Error;

fn training() -> TrainingState {
    let values = vec![1.5, -0.0, f32::MIN_POSITIVE, 3.0e38, 0.1, -7.25];
    let tensors = BTreeMap::from([
        ("b.second_moment".to_owned(), NamedTensor { shape: vec![2, 3], values }),
        ("a.first_moment".to_owned(), NamedTensor { shape: vec![1], values: vec![0.25] }),
    ]);
    let run = RunState {
        global_step: 7,
        config_fingerprint: "abc".into(),
        loader: json!({"epoch": 1, "row": 12}),
        random_streams: BTreeMap::from([("dropout".to_owned(), json!({"word": 99}))]),
        counters: BTreeMap::from([("tokens".to_owned(), u64::MAX)]),
        measures: BTreeMap::from([("best_eval_loss".to_owned(), 0.1 + 0.2)]),
    };
    TrainingState { run, tensors }
}

fn save_step(run_dir: &Path, step: u64) -> PathBuf {
    let trainer =
        TrainerState { global_step: step, epoch: 0.5, best_metric: Some(1.25), ..TrainerState::default() };
    let mut write_model = |folder: &Path| {
        fs::write(folder.join("adapter_config.json"), format!("{{\"step\": {step}}}"))
            .context(|| "writing".into())
    };
    save(
        run_dir,
        step,
        CheckpointContents { training: &training(), trainer: &trainer, write_model: &mut write_model },
    )
    .unwrap()
}

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let folder = save_step(dir.path(), 7);
    assert_eq!(folder, dir.path().join("checkpoint-7"));
    let mut read = load(&folder).unwrap();
    assert_eq!(read.training, training());
    assert_eq!((read.trainer.global_step, read.trainer.best_metric), (7, Some(1.25)));
    assert!(read.training.take("b.second_moment", &[3, 2]).unwrap_err().to_string().contains("[2, 3]"));
    assert_eq!(read.training.take("a.first_moment", &[1]).unwrap(), [0.25]);
    assert!(read.training.take("a.first_moment", &[1]).is_err());
}

#[test]
fn damage_is_found_and_named() {
    for name in ["optimizer.safetensors", "state.json", "trainer_state.json", "adapter_config.json"] {
        let dir = tempfile::tempdir().unwrap();
        let folder = save_step(dir.path(), 1);
        let path = folder.join(name);
        let whole = fs::read(&path).unwrap();
        let message = || load(&folder).unwrap_err().to_string();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, flipped).unwrap();
        assert!(message().contains(&format!("{name} has changed")), "{}", message());
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(message().contains(&format!("{name} has {} bytes", whole.len() / 2)), "{}", message());
        fs::remove_file(&path).unwrap();
        assert!(message().contains(&format!("{name} is missing")), "{}", message());
        fs::write(folder.join("checksums.json"), "{").unwrap();
        assert!(message().contains("checksums.json is damaged"), "{}", message());
    }
}

#[test]
fn a_failed_write_leaves_the_old_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let folder = save_step(dir.path(), 3);
    let mut fail = |_: &Path| Err(Error::data("disk full"));
    let trainer = TrainerState::default();
    let contents = CheckpointContents { training: &training(), trainer: &trainer, write_model: &mut fail };
    let error = save(dir.path(), 3, contents).unwrap_err();
    assert!(error.to_string().contains("disk full"));
    assert_eq!(load(&folder).unwrap().trainer.global_step, 3);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_kill_at_any_moment_leaves_old_or_new() {
    // Killed while writing: the temporary folder is half full.
    let dir = tempfile::tempdir().unwrap();
    save_step(dir.path(), 5);
    fs::create_dir(dir.path().join(".tmp-checkpoint-6")).unwrap();
    fs::write(dir.path().join(".tmp-checkpoint-6/state.json"), "{").unwrap();
    assert_eq!(latest(dir.path()).unwrap().unwrap(), dir.path().join("checkpoint-5"));
    assert!(!dir.path().join(".tmp-checkpoint-6").exists());

    // Killed between the two renames: the old folder is out of the way, the new one not yet in place.
    fs::rename(dir.path().join("checkpoint-5"), dir.path().join(".old-checkpoint-5")).unwrap();
    fs::create_dir(dir.path().join(".tmp-checkpoint-5")).unwrap();
    let found = latest(dir.path()).unwrap().unwrap();
    assert_eq!(load(&found).unwrap().trainer.global_step, 5);

    // Killed before the old folder was deleted.
    fs::create_dir(dir.path().join(".old-checkpoint-5")).unwrap();
    save_step(dir.path(), 5);
    assert_eq!(list(dir.path()).unwrap().len(), 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_latest_is_the_highest_step() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(latest(dir.path()).unwrap(), None);
    assert_eq!(latest(&dir.path().join("absent")).unwrap(), None);
    for step in [9, 100, 20] {
        save_step(dir.path(), step);
    }
    fs::create_dir(dir.path().join("checkpoint-final")).unwrap();
    assert_eq!(latest(dir.path()).unwrap().unwrap(), dir.path().join("checkpoint-100"));
}

#[test]
fn retention_spares_the_best_and_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    for step in 1..=5 {
        save_step(dir.path(), step);
    }
    let steps = || list(dir.path()).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
    retain(dir.path(), 3, &[dir.path().join("checkpoint-1")]).unwrap();
    assert_eq!(steps(), [1, 3, 4, 5]);
    retain(dir.path(), 1, &[PathBuf::from("checkpoint-1")]).unwrap();
    assert_eq!(steps(), [1, 5]);
    retain(dir.path(), 0, &[]).unwrap();
    assert_eq!(steps(), [1, 5]);
    retain(dir.path(), 1, &[]).unwrap();
    assert_eq!(steps(), [5]);
}
