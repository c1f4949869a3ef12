use super::testing::*;
use super::*;

#[test]
fn pictures() {
    let folder = std::path::PathBuf::from("/tmp/tui");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, state) in [("empty", empty()), ("mid", middle()), ("fin", finished()), ("fail", failed()), ("absurd", absurd())] {
        for (i, size) in SIZES.iter().enumerate() {
            for (t, theme) in [("dark", Theme::DARK), ("light", Theme::LIGHT), ("mono", Theme::MONO)] {
                let buffer = drawn(&state, theme, *size);
                std::fs::write(folder.join(format!("{name}-{i}-{t}.svg")), svg(&buffer, theme)).unwrap();
            }
            std::fs::write(folder.join(format!("{name}-{i}.txt")), screen(&state, *size)).unwrap();
        }
    }
    let mut state = middle();
    for pane in Pane::ALL {
        state.ui.focus = pane;
        std::fs::write(folder.join(format!("pane-{}.txt", pane.name())), screen(&state, (80, 24))).unwrap();
        std::fs::write(folder.join(format!("pane-{}.svg", pane.name())), svg(&drawn(&state, Theme::DARK, (80, 24)), Theme::DARK)).unwrap();
    }
}
