//! What the loop does between steps because someone asked for it.

use std::time::Instant;

use super::run::Run;
use crate::data::Message;
use crate::error::Result;
use crate::generate::{Generator, Sampling};
use crate::metrics::{Command, Event, Sample};

/// What all commands together may multiply the learning rate with, or divide it by.
const LARGEST_SCALE: f64 = 1e6;

/// What the commands mean for the loop itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    GoOn,
    /// End with the best checkpoint as the result.
    StopKeepBest,
}

impl Run<'_> {
    /// Obeys all commands that wait, after the steps that were submitted; while the run is paused, also those that come.
    pub(super) async fn obey(&mut self) -> Result<Wish> {
        let step = self.setup.trainer.step;
        let mut paused = false;
        while !self.control.stopping() {
            let command = self.control.take();
            if command.is_some() {
                self.settle().await?;
            }
            match command {
                Some(Command::Pause) if !paused => {
                    paused = true;
                    self.recorder.record(&Event::Paused { step });
                }
                Some(Command::Resume) if paused => {
                    paused = false;
                    self.recorder.record(&Event::Resumed { step });
                }
                Some(Command::StopKeepBest) => {
                    self.say_what_is_kept();
                    return Ok(Wish::StopKeepBest);
                }
                Some(command) => self.act(command).await?,
                None if paused => self.control.wait().await,
                None => break,
            }
        }
        Ok(Wish::GoOn)
    }

    async fn act(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Checkpoint => self.save().await,
            Command::Evaluate if self.setup.validation.is_empty() => {
                self.notice("there are no validation rows to evaluate on");
                Ok(())
            }
            Command::Evaluate => self.evaluate().await.map(|_| ()),
            Command::Sample(prompt) => match self.sample(&prompt).await {
                Ok(()) => Ok(()),
                Err(error) => {
                    self.notice(&format!("the prompt cannot be continued: {error}"));
                    Ok(())
                }
            },
            Command::ScaleLearningRate(factor) => {
                let scale = self.setup.trainer.learning_rate_scale * factor;
                let scale = scale.clamp(1.0 / LARGEST_SCALE, LARGEST_SCALE);
                self.setup.trainer.learning_rate_scale = scale;
                self.setup.progress.learning_rate_scale = scale;
                self.tell_learning_rate();
                Ok(())
            }
            // Said twice, or a matter of the dashboard alone.
            Command::Pause
            | Command::Resume
            | Command::StopKeepBest
            | Command::Quit { .. }
            | Command::Detach => Ok(()),
        }
    }

    pub(super) fn tell_learning_rate(&mut self) {
        let trainer = &self.setup.trainer;
        let (step, scale, learning_rate) =
            (trainer.step, trainer.learning_rate_scale, trainer.learning_rate());
        self.recorder.record(&Event::LearningRate { step, scale, learning_rate });
    }

    fn say_what_is_kept(&mut self) {
        let message = match &self.setup.progress.best {
            Some(best) => format!("stopped by request; the result is that of step {}", best.step),
            None => {
                "stopped by request; nothing was evaluated, so the result is that of the last step".to_owned()
            }
        };
        self.notice(&message);
    }

    fn notice(&mut self, message: &str) {
        self.recorder.record(&Event::Notice { message: message.to_owned() });
    }

    /// The configured prompts.
    pub(super) async fn samples(&mut self) -> Result<()> {
        for prompt in self.setup.config.train.sample_prompts.clone() {
            self.sample(&prompt).await?;
        }
        Ok(())
    }

    /// Continues a prompt greedily with the model as it is now.
    async fn sample(&mut self, prompt: &str) -> Result<()> {
        let start = Instant::now();
        let setup = &self.setup;
        let Some(tokenizer) = &setup.tokenizer else {
            self.notice("the model has no tokenizer: prompts cannot be continued");
            return Ok(());
        };
        let generator = Generator {
            executor: &setup.trainer.executor,
            decoder: &setup.model.decoder,
            trained: &setup.trainer.builder.trained,
            settled: false,
            dtype: setup.model.dtype,
            stop: tokenizer.end_of_sequence_ids(),
        };
        let text = if tokenizer.has_template() {
            tokenizer.render(&[Message::new("user", prompt)], None, true)?
        } else {
            prompt.to_owned()
        };
        let ids = tokenizer.encode(&text)?;
        let limit = setup.config.train.sample_max_tokens;
        let generated = generator.generate(&ids, limit, Sampling::GREEDY, &mut |_| {}).await?;
        let text = tokenizer.decode(&generated.tokens)?;
        self.eval_ms += start.elapsed().as_secs_f64() * 1e3;
        let step = self.setup.trainer.step;
        self.recorder.record(&Event::Sample(Sample { step, prompt: prompt.to_owned(), text }));
        Ok(())
    }
}
