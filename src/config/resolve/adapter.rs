//! Checks of `[adapter]`.

use super::Resolver;
use crate::config::report::{Place, Problem};
use crate::config::sections::{AdapterSection, KNOWN_TO_INIT, Method, TargetModules};
use std::collections::HashSet;

impl Resolver<'_> {
    pub(super) fn adapter(&mut self, mut adapter: AdapterSection) -> AdapterSection {
        self.lora_keys_without_lora(&adapter);
        self.target_modules(&adapter.target_modules);
        self.module_list("modules_to_save", &adapter.modules_to_save);
        self.layers(adapter.layers_to_transform.as_deref().unwrap_or_default());
        for key in adapter.rank_pattern.keys() {
            let place = self.document.table_key("adapter", "rank_pattern", key);
            self.compiles(key, place);
        }
        for key in adapter.alpha_pattern.keys() {
            let place = self.document.table_key("adapter", "alpha_pattern", key);
            self.compiles(key, place);
        }
        adapter.init = adapter.init.map(|folder| self.input("adapter", "init", &folder));
        if let Some(folder) = adapter.init.as_ref().filter(|folder| !folder.is_dir()) {
            let problem = self.problem("adapter", "init", "the adapter to continue from is not a folder");
            let looked = format!("looked at {}; it holds adapter_config.json", folder.display());
            self.report(problem.help(looked));
        }
        if adapter.init.is_some() {
            adapter.given =
                KNOWN_TO_INIT.into_iter().filter(|key| self.document.given("adapter", key)).collect();
        }
        adapter
    }

    /// With `method = "full"` a LoRA key that says something else than its default would be ignored.
    fn lora_keys_without_lora(&mut self, adapter: &AdapterSection) {
        if adapter.method == Method::Lora {
            return;
        }
        let default = AdapterSection::default();
        let idle = [
            ("r", adapter.r != default.r),
            ("alpha", adapter.alpha != default.alpha),
            ("dropout", adapter.dropout != default.dropout),
            ("use_rslora", adapter.use_rslora != default.use_rslora),
            ("use_dora", adapter.use_dora != default.use_dora),
            ("target_modules", adapter.target_modules != default.target_modules),
            ("layers_to_transform", adapter.layers_to_transform != default.layers_to_transform),
            ("rank_pattern", adapter.rank_pattern != default.rank_pattern),
            ("alpha_pattern", adapter.alpha_pattern != default.alpha_pattern),
            ("modules_to_save", adapter.modules_to_save != default.modules_to_save),
            ("init", adapter.init != default.init),
        ];
        for (key, _) in idle.iter().filter(|(_, changed)| *changed) {
            let method = self.document.value("adapter", "method");
            let problem = self.problem("adapter", key, format!("`{key}` is only for method = \"lora\""));
            self.report(
                problem.also(method, "all weights are trained").help("remove it, or train an adapter"),
            );
        }
    }

    fn target_modules(&mut self, modules: &TargetModules) {
        match modules {
            TargetModules::AllLinear => {}
            TargetModules::Regex(regex) => {
                let place = self.document.value("adapter", "target_modules");
                let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if regex.chars().all(bare) {
                    let title = format!("`{regex}` matches no module");
                    let problem = self.problem("adapter", "target_modules", title);
                    self.report(
                        problem
                            .label("a string is a regex over the full module path")
                            .help(format!("write [\"{regex}\"] for modules of this name, or \"all-linear\"")),
                    );
                } else {
                    self.compiles(regex, place);
                }
            }
            TargetModules::List(names) => self.module_names(names),
        }
    }

    fn module_names(&mut self, names: &[String]) {
        if names.is_empty() {
            let problem = self.problem("adapter", "target_modules", "`target_modules` is empty");
            self.report(
                problem.label("nothing would be trained").help("\"all-linear\" takes every linear layer"),
            );
        }
        self.module_list("target_modules", names);
    }

    fn module_list(&mut self, key: &str, names: &[String]) {
        let mut seen = HashSet::new();
        for (index, name) in names.iter().enumerate() {
            let place = self.document.element("adapter", key, index);
            if name == "all-linear" {
                let problem = Problem::new(place, "`all-linear` is not a module");
                self.report(problem.help("write target_modules = \"all-linear\", without a list"));
            } else if name.trim().is_empty() {
                self.report(Problem::new(place, "a module name is empty"));
            } else if !seen.insert(name) {
                self.report(Problem::new(place, format!("`{name}` is listed twice")));
            }
        }
    }

    fn layers(&mut self, layers: &[usize]) {
        let mut seen = HashSet::new();
        for (index, layer) in layers.iter().enumerate() {
            if !seen.insert(layer) {
                let place = self.document.element("adapter", "layers_to_transform", index);
                self.report(Problem::new(place, format!("layer {layer} is listed twice")));
            }
        }
    }

    fn compiles(&mut self, regex: &str, place: Place) {
        if let Err(error) = regex::Regex::new(&format!("^(?:{regex})$")) {
            // The last line says what is wrong; the lines before it draw the wrapped pattern.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let problem = Problem::new(place, "this is not a valid regex");
            self.report(problem.label(reason));
        }
    }
}
