use proptest::prelude::*;

use super::*;

fn model() -> Vec<LinearModule> {
    let mut modules = Vec::new();
    for layer in 0..12 {
        for name in ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"] {
            let path = format!("model.layers.{layer}.{name}");
            modules.push(LinearModule {
                path,
                layer: Some(layer),
                in_features: 8,
                out_features: 4,
                experts: None,
            });
        }
    }
    modules.push(LinearModule {
        path: "lm_head".into(),
        layer: None,
        in_features: 8,
        out_features: 100,
        experts: None,
    });
    modules
}

fn spec(target_modules: TargetModules) -> AdapterSpec {
    AdapterSpec {
        r: 4,
        alpha: 8.0,
        dropout: 0.0,
        use_rslora: false,
        use_dora: false,
        target_modules,
        layers_to_transform: None,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
        modules_to_save: Vec::new(),
        trainable_token_indices: BTreeMap::new(),
    }
}

fn list(names: &[&str]) -> TargetModules {
    TargetModules::List(names.iter().map(|name| name.to_string()).collect())
}

#[test]
fn all_linear_leaves_out_the_head() {
    let adapted = spec(TargetModules::AllLinear).resolve(&model()).unwrap();
    assert_eq!(adapted.len(), 36);
    assert!(adapted.iter().all(|linear| linear.path != "lm_head" && linear.scale == 2.0));
}

#[test]
fn list_entries_match_whole_path_components_only() {
    let count = |names: &[&str]| spec(list(names)).resolve(&model()).map_or(0, |adapted| adapted.len());
    assert_eq!(count(&["q_proj"]), 12);
    assert_eq!(count(&["proj"]), 0);
    assert_eq!(count(&["self_attn.q_proj", "lm_head"]), 13);
    assert_eq!(count(&["model.layers.1.mlp.down_proj"]), 1);
    assert_eq!(count(&["1.mlp.down_proj"]), 1);
}

#[test]
fn a_regex_must_match_the_whole_path() {
    let count = |pattern: &str| {
        spec(TargetModules::Regex(pattern.into())).resolve(&model()).map_or(0, |adapted| adapted.len())
    };
    assert_eq!(count("q_proj"), 0);
    assert_eq!(count(r".*\.q_proj|.*\.v_proj"), 24);
    assert_eq!(count(r"model\.layers\.\d\.mlp.*"), 10);
}

#[test]
fn ranks_and_alphas_follow_patterns() {
    let mut spec = spec(TargetModules::AllLinear);
    spec.rank_pattern.insert("q_proj".into(), 16);
    spec.rank_pattern.insert("layers.1.mlp.down_proj".into(), 2);
    spec.alpha_pattern.insert(r".*\.v_proj".into(), 1.0);
    spec.use_rslora = true;
    let adapted = spec.resolve(&model()).unwrap();
    let of = |path: &str| adapted.iter().find(|linear| linear.path == path).unwrap();
    assert_eq!(
        (of("model.layers.3.self_attn.q_proj").rank, of("model.layers.3.self_attn.q_proj").scale),
        (16, 2.0)
    );
    assert_eq!(of("model.layers.1.mlp.down_proj").rank, 2);
    assert_eq!(of("model.layers.11.mlp.down_proj").rank, 4);
    assert_eq!(of("model.layers.0.self_attn.v_proj").scale, 0.5);
}

#[test]
fn layers_to_transform_limits_the_layers() {
    let mut spec = spec(TargetModules::AllLinear);
    spec.layers_to_transform = Some(vec![0, 11]);
    let layers: Vec<_> = spec.resolve(&model()).unwrap().iter().map(|linear| linear.layer).collect();
    assert_eq!(layers, [Some(0), Some(0), Some(0), Some(11), Some(11), Some(11)]);
}

#[test]
fn no_match_lists_the_layers_of_the_model() {
    let error = spec(list(&["query"])).resolve(&model()).unwrap_err();
    assert_eq!(error.to_string(), r#"target_modules ["query"] matches no layer of the model"#);
    assert!(error.hint_text().unwrap().contains("down_proj, lm_head, q_proj, v_proj, in 12 decoder layers"));
}

#[test]
fn values_out_of_range_are_refused() {
    let refused = |change: fn(&mut AdapterSpec)| {
        let mut spec = spec(TargetModules::AllLinear);
        change(&mut spec);
        spec.resolve(&model()).unwrap_err().to_string()
    };
    assert!(refused(|spec| spec.r = 0).contains("rank r = 0"));
    assert!(refused(|spec| spec.alpha = f64::NAN).contains("alpha = NaN"));
    assert!(refused(|spec| spec.dropout = 1.0).contains("dropout 1"));
    assert!(refused(|spec| spec.rank_pattern = BTreeMap::from([("q".into(), 0)])).contains("rank q = 0"));
    assert!(
        refused(|spec| spec.target_modules = TargetModules::Regex("(".into()))
            .contains("not a valid regular")
    );
}

proptest! {
    /// An entry matches exactly the paths that end with it at a component boundary.
    #[test]
    fn a_list_entry_is_a_suffix_of_components(entry in "(model|layers|[0-9]{1,2}|self_attn|q_proj|mlp|proj)(\\.(q_proj|v_proj|down_proj|mlp|1)){0,2}") {
        let expected: Vec<_> = model()
            .into_iter()
            .filter(|module| {
                let path: Vec<_> = module.path.split('.').collect();
                let entry: Vec<_> = entry.split('.').collect();
                path.ends_with(&entry)
            })
            .map(|module| module.path)
            .collect();
        let found: Vec<_> = spec(TargetModules::List(vec![entry]))
            .resolve(&model())
            .map_or(Vec::new(), |adapted| adapted.into_iter().map(|linear| linear.path).collect());
        prop_assert_eq!(found, expected);
    }

    /// Any text as a pattern gives a result or an error, never a panic.
    #[test]
    fn any_pattern_is_handled(pattern in ".{0,40}") {
        let mut spec = spec(TargetModules::Regex(pattern.clone()));
        spec.rank_pattern.insert(pattern, 3);
        let _ = spec.resolve(&model());
    }
}
