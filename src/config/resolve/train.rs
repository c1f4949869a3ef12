//! Checks of `[train]` and `[schedule]`, which depend on each other.

use super::Resolver;
use crate::config::report::Problem;
use crate::config::sections::{
    OptimizerSection, RawTrain, RunLength, ScheduleKind, ScheduleSection, TrainSection, Validation,
};
use std::path::{Path, PathBuf};

/// Less holds no row worth keeping.
const LEAST_CACHE: u64 = 1 << 20;

impl Resolver<'_> {
    pub(super) fn train(
        &mut self,
        raw: RawTrain,
        validation: &Validation,
        default_output: &Path,
    ) -> TrainSection {
        let length = self.run_length(&raw);
        let eval_steps = self.eval_steps(&raw, validation);
        let output_dir = match &raw.output_dir {
            Some(folder) => self.output(folder),
            None => default_output.to_owned(),
        };
        if raw.output_dir.as_ref().is_some_and(|folder| folder.as_os_str().is_empty())
            || (output_dir.exists() && !output_dir.is_dir())
        {
            let problem = self.problem("train", "output_dir", "`output_dir` is not a folder");
            self.report(problem.help("it is made when the run starts; no file may stand there"));
        }
        for (index, prompt) in raw.sample_prompts.iter().enumerate() {
            if prompt.trim().is_empty() {
                let place = self.document.element("train", "sample_prompts", index);
                self.report(Problem::new(place, "a sample prompt is empty"));
            }
        }
        let (frozen_prefix_cache, frozen_prefix_cache_dir) = self.frozen_prefix_cache(&raw);
        TrainSection {
            batch_size: raw.batch_size,
            gradient_accumulation_steps: raw.gradient_accumulation_steps,
            length,
            seed: raw.seed,
            eval_steps,
            save_steps: raw.save_steps,
            save_total_limit: raw.save_total_limit,
            output_dir,
            early_stopping_patience: raw.early_stopping_patience,
            sample_prompts: raw.sample_prompts,
            sample_max_tokens: raw.sample_max_tokens,
            frozen_prefix_cache,
            frozen_prefix_cache_dir,
        }
    }

    fn frozen_prefix_cache(&mut self, raw: &RawTrain) -> (Option<u64>, Option<PathBuf>) {
        let bytes = raw.frozen_prefix_cache.map(|size| size.0);
        if bytes.is_some_and(|bytes| (1..LEAST_CACHE).contains(&bytes) || bytes > i64::MAX as u64) {
            let title = "`frozen_prefix_cache` is out of range";
            let problem = self.problem("train", "frozen_prefix_cache", title);
            self.report(problem.label("must be at least 1MiB").help("\"off\" turns the cache off"));
        }
        let folder = raw.frozen_prefix_cache_dir.as_ref().map(|folder| self.output(folder));
        if folder.as_ref().is_some_and(|folder| folder.exists() && !folder.is_dir()) {
            let title = "`frozen_prefix_cache_dir` is not a folder";
            let problem = self.problem("train", "frozen_prefix_cache_dir", title);
            self.report(problem.help("it is made when the run starts; no file may stand there"));
        }
        if folder.is_some() && bytes == Some(0) {
            let off = self.document.value("train", "frozen_prefix_cache");
            let title = "`frozen_prefix_cache_dir` is for a cache that is off";
            let problem = self.problem("train", "frozen_prefix_cache_dir", title);
            self.report(problem.also(off, "nothing is cached").help("remove it, or give the cache a size"));
        }
        (bytes, folder)
    }

    fn run_length(&mut self, raw: &RawTrain) -> RunLength {
        let both = self.document.given("train", "epochs") && self.document.given("train", "max_steps");
        if both {
            let epochs = self.document.value("train", "epochs");
            let problem =
                self.problem("train", "max_steps", "`epochs` and `max_steps` contradict each other");
            self.report(
                problem
                    .label("the run ends after these steps")
                    .also(epochs, "or after these epochs?")
                    .help("keep one of the two"),
            );
        }
        match (raw.max_steps, raw.epochs) {
            (Some(steps), _) => RunLength::Steps(steps),
            (None, epochs) => RunLength::Epochs(epochs.unwrap_or_default()),
        }
    }

    /// Without validation rows nothing is evaluated: an interval that was asked for is refused, the default is 0.
    fn eval_steps(&mut self, raw: &RawTrain, validation: &Validation) -> usize {
        let patience = raw.early_stopping_patience.is_some();
        let place = self.document.value("data", "validation");
        let eval_steps = match validation {
            Validation::None if self.document.given("train", "eval_steps") && raw.eval_steps > 0 => {
                let problem = self.problem("train", "eval_steps", "there are no rows to evaluate on");
                self.report(
                    problem
                        .also(place.clone(), "no validation rows")
                        .help("set data.validation = \"auto\" or name files, or remove `eval_steps`"),
                );
                raw.eval_steps
            }
            Validation::None => 0,
            Validation::Auto | Validation::Files(_) => raw.eval_steps,
        };
        if patience && eval_steps == 0 {
            let never = "`early_stopping_patience` counts evaluations, and there are none";
            let problem = self.problem("train", "early_stopping_patience", never);
            self.report(problem.help("set data.validation and train.eval_steps, or remove it"));
        }
        eval_steps
    }

    pub(super) fn schedule(
        &mut self,
        schedule: &ScheduleSection,
        optimizer: &OptimizerSection,
        length: RunLength,
    ) {
        if let RunLength::Steps(steps) = length
            && schedule.warmup_steps >= steps
        {
            let place = self.document.value("train", "max_steps");
            let problem = self.problem("schedule", "warmup_steps", "the warmup is as long as the run");
            self.report(
                problem
                    .label(format!("{} steps of warmup", schedule.warmup_steps))
                    .also(place, format!("the run has {steps}"))
                    .help("set fewer, for example --set schedule.warmup_steps=0"),
            );
        }
        if schedule.min_learning_rate > optimizer.learning_rate {
            let place = self.document.value("optimizer", "learning_rate");
            let title = "`min_learning_rate` is above the learning rate";
            let problem = self.problem("schedule", "min_learning_rate", title);
            self.report(problem.also(place, format!("the highest is {}", optimizer.learning_rate)));
        }
        if schedule.name == ScheduleKind::Constant && schedule.min_learning_rate > 0.0 {
            let place = self.document.value("schedule", "name");
            let title = "a constant learning rate has no minimum";
            let problem = self.problem("schedule", "min_learning_rate", title);
            self.report(
                problem.also(place, "never falls").help("remove it, or choose \"linear\" or \"cosine\""),
            );
        }
    }
}
