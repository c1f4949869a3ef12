//! Colours by what they mean, for dark and light terminals, with 256 colours, 16 or none.

use ratatui::style::{Color, Modifier, Style};

/// What something on the screen is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Text,
    /// Labels, axes, what matters less.
    Dim,
    Border,
    Focus,
    Key,
    /// Single values of a noisy curve.
    Raw,
    Loss,
    Validation,
    Best,
    Tokens,
    Supervised,
    Rate,
    Norm,
    Good,
    Warning,
    Bad,
    /// An index into the stages of a step, or any other list.
    Part(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    None,
    Sixteen,
    Indexed,
}

/// What the user asked for; what is left open is found out from the environment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Background {
    #[default]
    Detect,
    Dark,
    Light,
}

/// A palette.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    depth: Depth,
    light: bool,
}

/// Colours on a dark and a light background of 256, and one of 16 that is readable on both.
type Shades = (u8, u8, Color);

/// Parts of a bar, told apart by their order.
const PARTS: [Shades; 8] = [
    (245, 243, Color::Gray),
    (75, 32, Color::Blue),
    (141, 97, Color::Magenta),
    (215, 166, Color::Yellow),
    (80, 30, Color::Cyan),
    (114, 28, Color::Green),
    (203, 160, Color::Red),
    (181, 131, Color::Gray),
];

/// From little to much.
const HEAT_DARK: [u8; 12] = [236, 53, 54, 55, 61, 67, 73, 78, 113, 149, 185, 227];
const HEAT_LIGHT: [u8; 12] = [230, 193, 157, 115, 79, 73, 67, 61, 60, 54, 53, 17];
const SHADES: [&str; 5] = [" ", "░", "▒", "▓", "█"];

impl Theme {
    /// 256 colours on a dark background.
    pub const DARK: Self = Self { depth: Depth::Indexed, light: false };
    /// 256 colours on a light background.
    pub const LIGHT: Self = Self { depth: Depth::Indexed, light: true };
    /// Symbols, bold and dim only.
    pub const MONO: Self = Self { depth: Depth::None, light: false };

    /// Looks at NO_COLOR, COLORTERM, TERM and COLORFGBG through `variable`.
    pub fn detect(background: Background, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let term = set("TERM").unwrap_or_default();
        let many = ["256color", "kitty", "alacritty", "ghostty", "wezterm", "foot", "direct"];
        let depth = if set("NO_COLOR").is_some() {
            Depth::None
        } else if set("COLORTERM").is_some() || many.iter().any(|name| term.contains(name)) {
            Depth::Indexed
        } else {
            Depth::Sixteen
        };
        // COLORFGBG is "foreground;background", sometimes with a word between.
        let shade = set("COLORFGBG").and_then(|value| value.rsplit(';').next()?.parse::<u8>().ok());
        let light = match background {
            Background::Detect => matches!(shade, Some(7 | 9..=15)),
            chosen => chosen == Background::Light,
        };
        Self { depth, light }
    }

    pub fn is_light(self) -> bool {
        self.light
    }

    /// Whether parts of a bar have to differ in their symbols.
    pub fn is_mono(self) -> bool {
        self.depth == Depth::None
    }

    /// Colours and weight of a role.
    pub fn style(self, role: Role) -> Style {
        let (dark, light, sixteen) = shades(role);
        let plain = match role {
            Role::Best | Role::Bad | Role::Warning | Role::Focus | Role::Key => {
                Style::new().add_modifier(Modifier::BOLD)
            }
            _ => Style::new(),
        };
        match self.depth {
            Depth::None if matches!(role, Role::Dim | Role::Border | Role::Raw) => {
                plain.add_modifier(Modifier::DIM)
            }
            Depth::None => plain,
            Depth::Sixteen => plain.fg(sixteen),
            Depth::Indexed if role == Role::Text => plain,
            Depth::Indexed => plain.fg(Color::Indexed(if self.light { light } else { dark })),
        }
    }

    /// The cell of a heat map; `part` from 0 to 1.
    pub fn heat(self, part: f64) -> (&'static str, Style) {
        let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { return ("?", self.style(Role::Bad)) };
        if self.depth == Depth::Indexed {
            let ramp = if self.light { HEAT_LIGHT } else { HEAT_DARK };
            let index = (part * (ramp.len() - 1) as f64).round() as usize;
            return (" ", Style::new().bg(Color::Indexed(ramp[index])));
        }
        let index = (part * (SHADES.len() - 1) as f64).round() as usize;
        (SHADES[index], self.style(Role::Tokens))
    }

    /// The symbol that fills a part of a bar.
    pub fn fill(self, part: usize) -> &'static str {
        const FILLS: [&str; 7] = ["█", "▒", "▓", "░", "▚", "▤", "▪"];
        if self.is_mono() { FILLS[part % FILLS.len()] } else { "█" }
    }
}

/// The palette.
fn shades(role: Role) -> Shades {
    match role {
        Role::Text => (252, 235, Color::Reset),
        Role::Dim => (244, 243, Color::DarkGray),
        Role::Border => (239, 250, Color::DarkGray),
        Role::Focus => (75, 26, Color::Blue),
        Role::Key => (117, 25, Color::Cyan),
        Role::Raw => (60, 153, Color::DarkGray),
        Role::Loss => (215, 166, Color::Yellow),
        Role::Validation => (114, 28, Color::Green),
        Role::Best => (227, 130, Color::Green),
        Role::Tokens => (80, 30, Color::Cyan),
        Role::Supervised => (141, 97, Color::Magenta),
        Role::Rate => (117, 25, Color::Blue),
        Role::Norm => (176, 133, Color::Magenta),
        Role::Good => (114, 28, Color::Green),
        Role::Warning => (221, 130, Color::Yellow),
        Role::Bad => (203, 160, Color::Red),
        Role::Part(index) => PARTS[index % PARTS.len()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &'static [(&'static str, &'static str)]) -> Theme {
        let find =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Theme::detect(Background::Detect, find)
    }

    #[test]
    fn the_environment_decides() {
        assert_eq!(with(&[("TERM", "xterm-256color")]), Theme::DARK);
        assert_eq!(with(&[("TERM", "xterm-256color"), ("COLORFGBG", "0;default;15")]), Theme::LIGHT);
        assert_eq!(with(&[("TERM", "xterm-256color"), ("COLORFGBG", "15;0")]), Theme::DARK);
        assert!(with(&[("NO_COLOR", "1"), ("COLORTERM", "truecolor")]).is_mono());
        assert!(!with(&[("NO_COLOR", ""), ("COLORTERM", "truecolor")]).is_mono());
        assert_eq!(with(&[("TERM", "linux")]).depth, Depth::Sixteen);
    }

    #[test]
    fn no_color_means_none() {
        let parts = (0..8).map(Role::Part);
        for role in [Role::Text, Role::Dim, Role::Bad, Role::Loss].into_iter().chain(parts) {
            assert_eq!((Theme::MONO.style(role).fg, Theme::MONO.style(role).bg), (None, None));
        }
        assert_eq!(Theme::MONO.heat(0.5).1.bg, None);
        assert_eq!(Theme::DARK.heat(f64::NAN).0, "?");
    }
}
