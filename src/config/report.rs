//! Problems found in a configuration, and their rendering with the offending text underlined.

use crate::error::Error;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};
use std::ops::Range;

/// More problems than this are counted, not shown.
const MAX_SHOWN: usize = 20;
/// The part of a long line around its underlined text that is shown, in columns.
const WIDTH: usize = 120;

/// A text that problems point into: the file, or one `--set` argument.
#[derive(Debug)]
pub(super) struct Origin {
    /// What stands after the arrow: the path as the user wrote it, or `--set`.
    pub name: String,
    pub text: String,
}

/// A stretch of one origin.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    /// Index into the origins of the document.
    pub origin: usize,
    /// Bytes; `None` when the key is missing and no text can be underlined.
    pub span: Option<Range<usize>>,
}

/// One thing that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    place: Place,
    title: String,
    label: String,
    also: Option<(Place, String)>,
    help: Option<String>,
}

impl Problem {
    pub fn new(place: Place, title: impl Into<String>) -> Self {
        Self { place, title: title.into(), label: String::new(), also: None, help: None }
    }

    /// The words right after the underline.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// A second place that has to do with it.
    pub fn also(mut self, place: Place, label: impl Into<String>) -> Self {
        self.also = Some((place, label.into()));
        self
    }

    /// What to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn start(&self) -> (usize, usize) {
        (self.place.origin, self.place.span.as_ref().map_or(usize::MAX, |span| span.start))
    }

    fn group<'a>(&'a self, origins: &'a [Origin], level: Level<'a>) -> Group<'a> {
        let mut group = Group::with_title(level.primary_title(&self.title));
        if let (None, Some(origin)) = (&self.place.span, origins.get(self.place.origin)) {
            return self.with_help(group.element(annotate_snippets::Origin::path(&origin.name)));
        }
        let also = self.also.as_ref();
        let same_origin = also.filter(|(place, _)| place.origin == self.place.origin);
        let mut snippet = open_snippet(origins, &self.place);
        snippet = underline(snippet, AnnotationKind::Primary, &self.place, &self.label);
        if let Some((place, label)) = same_origin {
            snippet = underline(snippet, AnnotationKind::Context, place, label);
        }
        group = group.element(snippet);
        if let (Some((place, label)), None) = (also, same_origin) {
            let snippet = open_snippet(origins, place);
            group = group.element(underline(snippet, AnnotationKind::Context, place, label));
        }
        self.with_help(group)
    }

    fn with_help<'a>(&self, group: Group<'a>) -> Group<'a> {
        match &self.help {
            Some(help) => group.element(Level::HELP.message(normalize_untrusted_str(help))),
            None => group,
        }
    }
}

fn open_snippet<'a>(origins: &'a [Origin], place: &Place) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    match origins.get(place.origin) {
        Some(origin) => Snippet::source(&origin.text).path(&origin.name),
        None => Snippet::source(""),
    }
}

fn underline<'a>(
    snippet: Snippet<'a, annotate_snippets::Annotation<'a>>,
    kind: AnnotationKind,
    place: &Place,
    label: &'a str,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    match &place.span {
        Some(span) => snippet.annotation(kind.span(span.clone()).label((!label.is_empty()).then_some(label))),
        None => snippet,
    }
}

/// Collects problems while a configuration is read and checked.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One user error that shows them all in the order of the text.
    pub fn into_error(mut self, origins: &[Origin], color: bool) -> Error {
        self.0.sort_by_key(Problem::start);
        let renderer = if color { Renderer::styled() } else { Renderer::plain() }.term_width(WIDTH);
        if let [problem] = self.0.as_slice() {
            let group = problem.group(origins, Level::ERROR.no_name());
            return Error::user(renderer.render(&[group]));
        }
        let name = origins.first().map_or("", |origin| origin.name.as_str());
        let mut message = format!("{name} has {} problems", self.0.len());
        for problem in self.0.iter().take(MAX_SHOWN) {
            message.push_str("\n\n");
            message.push_str(&renderer.render(&[problem.group(origins, Level::ERROR)]));
        }
        if self.0.len() > MAX_SHOWN {
            message.push_str(&format!("\n\nand {} more", self.0.len() - MAX_SHOWN));
        }
        Error::user(message)
    }
}
