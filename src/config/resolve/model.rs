//! Checks of `[model]`.

use super::Resolver;
use crate::config::report::Problem;
use crate::config::sections::{Method, ModelInit, ModelLocation, ModelSection, RawModel, is_hub_name};
use std::collections::HashSet;
use std::path::Path;

/// Less cannot hold the smallest model and its step.
const LEAST_BUDGET: u64 = 1 << 20;

impl Resolver<'_> {
    pub(super) fn model(&mut self, raw: RawModel, method: Method) -> ModelSection {
        let path = self.model_path(raw.path.as_deref());
        self.random_init(raw.init, method, &path);
        self.hub_keys(&raw, &path);
        self.tokens(&raw);
        let memory_budget = raw.memory_budget.map(|size| size.0);
        if memory_budget.is_some_and(|bytes| bytes < LEAST_BUDGET || bytes > i64::MAX as u64) {
            let problem = self.problem("model", "memory_budget", "`memory_budget` is out of range");
            self.report(
                problem.label("must be at least 1MiB").help("sizes are written as \"2GiB\" or in bytes"),
            );
        }
        let cache_dir = raw.cache_dir.map(|folder| self.input("model", "cache_dir", &folder));
        if cache_dir.as_ref().is_some_and(|folder| folder.exists() && !folder.is_dir()) {
            let problem = self.problem("model", "cache_dir", "`cache_dir` is not a folder");
            self.report(problem);
        }
        ModelSection {
            path,
            revision: raw.revision,
            token_env: raw.token_env,
            offline: raw.offline,
            cache_dir,
            dtype: raw.dtype,
            device: raw.device,
            init: raw.init,
            threads: raw.threads,
            memory_budget,
            add_tokens: raw.add_tokens,
            add_special_tokens: raw.add_special_tokens,
        }
    }

    fn tokens(&mut self, raw: &RawModel) {
        let mut seen = HashSet::new();
        for (key, tokens) in
            [("add_tokens", &raw.add_tokens), ("add_special_tokens", &raw.add_special_tokens)]
        {
            for (index, token) in tokens.iter().enumerate() {
                let place = self.document.element("model", key, index);
                if token.is_empty() {
                    self.report(Problem::new(place, "a token is empty"));
                } else if !seen.insert(token) {
                    self.report(Problem::new(place, format!("the token `{token}` is listed twice")));
                }
            }
        }
    }

    fn model_path(&mut self, text: Option<&str>) -> ModelLocation {
        let Some(text) = text else {
            if !self.document.given("model", "path") {
                let problem = self.problem("model", "path", "[model] needs `path`: the base model");
                self.report(
                    problem.help("path = a folder, a .gguf file or a hub name such as \"owner/name\""),
                );
            }
            return ModelLocation::Hub(String::new());
        };
        let absolute = self.input("model", "path", Path::new(text));
        match locate(text, &absolute) {
            Ok(location) => location,
            Err(reason) => {
                let problem = self.problem("model", "path", format!("there is no model at `{text}`"));
                self.report(problem.label(reason).help(format!("looked at {}", absolute.display())));
                ModelLocation::Hub(text.to_owned())
            }
        }
    }

    fn random_init(&mut self, init: ModelInit, method: Method, path: &ModelLocation) {
        if init != ModelInit::Random {
            return;
        }
        if method != Method::Full {
            let place = self.document.value("adapter", "method");
            let problem =
                self.problem("model", "init", "an adapter over random weights learns nothing of use");
            self.report(
                problem
                    .label("random weights")
                    .also(place, "but this is \"lora\", also by default")
                    .help("set adapter.method = \"full\", or model.init = \"pretrained\""),
            );
        }
        if !matches!(path, ModelLocation::Folder(_)) {
            let problem = self.problem("model", "path", "init = \"random\" needs a folder");
            self.report(problem.label("a config.json in a local folder says how large the model is"));
        }
    }

    fn hub_keys(&mut self, raw: &RawModel, path: &ModelLocation) {
        let clean =
            |text: &str| !text.is_empty() && !text.contains("..") && !text.contains(char::is_whitespace);
        if !clean(&raw.revision) {
            let problem = self.problem("model", "revision", "`revision` is not a branch, tag or commit");
            self.report(problem);
        } else if raw.revision != RawModel::default().revision && !matches!(path, ModelLocation::Hub(_)) {
            let place = self.document.value("model", "path");
            let problem = self.problem("model", "revision", "`revision` says nothing about a local model");
            self.report(problem.label("only for hub models").also(place, "this is local"));
        }
        let variable = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if raw.token_env.starts_with("hf_") || raw.token_env.is_empty() || !variable(&raw.token_env) {
            let problem = self.problem("model", "token_env", "`token_env` is not the name of a variable");
            self.report(problem.help("put the token in an environment variable and name that here"));
        }
    }
}

fn locate(text: &str, absolute: &Path) -> Result<ModelLocation, &'static str> {
    let gguf = absolute.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if text.trim().is_empty() {
        return Err("the path is empty");
    }
    if absolute.is_dir() {
        return Ok(ModelLocation::Folder(absolute.to_owned()));
    }
    if absolute.is_file() {
        return if gguf {
            Ok(ModelLocation::Gguf(absolute.to_owned()))
        } else {
            Err("a single file must be a .gguf; for safetensors give their folder")
        };
    }
    if gguf {
        return Err("there is no such file");
    }
    if is_hub_name(text) {
        return Ok(ModelLocation::Hub(text.to_owned()));
    }
    Err("neither an existing folder, nor a .gguf file, nor a hub name (owner/name)")
}
