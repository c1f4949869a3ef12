//! Chat templates: Jinja programs that print a conversation the way a model was trained to read it.

use super::message::Message;
use super::special_tokens::SpecialTokens;
use super::template_functions::{format_time, jinja_value, raise_exception, to_json};
use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value as JinjaValue};
use minijinja::{Environment, ErrorKind as JinjaErrorKind};
use regex::Regex;

/// Work that one rendering may do: an instruction costs 1, and so do 64 bytes of text. It bounds a rendering to about
/// a second and 256 MB, and a 10 MB conversation needs a tenth of it.
const FUEL: u64 = 4_000_000;

const NAME: &str = "chat_template";

/// A compiled chat template, with the environment that transformers gives it.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
}

impl ChatTemplate {
    /// Compiles a template. `clock` is what `strftime_now` reads, in seconds since 1970.
    ///
    /// # Errors
    /// The template has a syntax error.
    pub fn new(source: &str, special: &SpecialTokens, clock: u64) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| Error::internal(error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: String| format_time(clock, &format));
        environment.add_filter("tojson", |value: JinjaValue, options: Kwargs| to_json(&value, options));
        for (name, token) in special.template_variables() {
            environment.add_global(name, token.to_owned());
        }
        environment.add_template_owned(NAME, replace_generation_tags(source)?).map_err(|error| {
            template_error(&error).hint("set data.chat_template to a corrected template file")
        })?;
        Ok(Self { environment, source: source.to_owned() })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Prints a conversation. With `add_generation_prompt` the text ends where the assistant's answer begins.
    ///
    /// # Errors
    /// The template refuses the conversation, fails, or runs too long.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let conversation = Conversation::new(messages, tools);
        self.render_prefix(&conversation, messages.len(), add_generation_prompt)
    }

    /// Prints the first `length` messages of a conversation.
    pub(crate) fn render_prefix(
        &self,
        conversation: &Conversation,
        length: usize,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let messages = conversation.messages.get(..length).unwrap_or(&conversation.messages);
        let context = JinjaValue::from_pairs([
            ("messages", JinjaValue::from(messages)),
            ("tools", conversation.tools.clone()),
            ("documents", JinjaValue::from(())),
            ("add_generation_prompt", JinjaValue::from(add_generation_prompt)),
        ]);
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context))
            .map_err(|error| template_error(&error).hint(cure(error.kind())))
    }
}

/// What to do about a conversation that the template does not print.
fn cure(kind: JinjaErrorKind) -> &'static str {
    match kind {
        JinjaErrorKind::OutOfFuel => {
            "shorten the conversation, or set data.chat_template to a template that does less work"
        }
        JinjaErrorKind::InvalidOperation => {
            "the template decides which roles may follow each other: change the row, or set data.chat_template to a \
             template that takes it"
        }
        _ => {
            "add what the template asks for to the row, or set data.chat_template to a corrected template file"
        }
    }
}

/// Messages and tools as template values, converted once for all the prefixes that are rendered of them.
pub(crate) struct Conversation {
    messages: Vec<JinjaValue>,
    tools: JinjaValue,
}

impl Conversation {
    pub(crate) fn new(messages: &[Message], tools: Option<&serde_json::Value>) -> Self {
        let messages = messages
            .iter()
            .map(|message| {
                JinjaValue::from_pairs(
                    message.fields().iter().map(|(key, value)| (key.as_str(), jinja_value(value))),
                )
            })
            .collect();
        Self { messages, tools: tools.map_or_else(|| JinjaValue::from(()), jinja_value) }
    }
}

/// transformers marks assistant text with `{% generation %}` blocks. The supervision mask does not need them, so they
/// become blocks without effect that keep the tag's whitespace control.
fn replace_generation_tags(source: &str) -> Result<String> {
    let tag = |name: &str| {
        Regex::new(&format!(r"\{{%([-+]?)\s*{name}\s*([-+]?)%\}}"))
            .map_err(|error| Error::internal(error.to_string()))
    };
    let opened = tag("generation")?.replace_all(source, "{%${1} if true ${2}%}");
    Ok(tag("endgeneration")?.replace_all(&opened, "{%${1} endif ${2}%}").into_owned())
}

fn template_error(error: &minijinja::Error) -> Error {
    let place = error.line().map_or_else(String::new, |line| format!(" (line {line} of the template)"));
    let detail = match (error.kind(), error.detail()) {
        (JinjaErrorKind::OutOfFuel, _) => "it runs too long or prints too much".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    };
    Error::data(format!("the chat template fails: {detail}{place}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str) -> Result<String> {
        let template = ChatTemplate::new(source, &SpecialTokens::default(), 0)?;
        template.render(&[Message::new("user", " hi ")], Some(&json!([{"name": "f"}])), true)
    }

    #[test]
    fn offers_what_transformers_offers() {
        for (source, expected) in [
            ("{{ messages[0]['content'].strip() }}", "hi"),
            ("{{ messages[-1].get('name', 'none') }}", "none"),
            ("{{ tools | tojson }}", r#"[{"name": "f"}]"#),
            ("{{ strftime_now('%Y') }}", "1970"),
            ("{% generation %}x{% endgeneration %}\ny", "xy"),
            ("{%- for m in messages %}\n  {%- continue %}\n{%- endfor %}", ""),
            (
                "{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ true }}{{ none }}",
                "2TrueNone",
            ),
            ("{{ documents is none }}", "True"),
        ] {
            assert_eq!(render(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn runaway_templates_end_in_an_error() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        let doubling =
            "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
        let recursive = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        for source in [endless, doubling] {
            let error = render(source).unwrap_err();
            assert!(error.to_string().contains("runs too long"), "{error}");
        }
        assert!(render(recursive).is_err());
    }

    #[test]
    fn refusals_and_syntax_errors_say_why() {
        let refused = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(refused.to_string().contains("roles must alternate (line 1"), "{refused}");
        let broken = render("line\n{% if %}").unwrap_err();
        assert!(broken.to_string().contains("line 2"), "{broken}");
        assert!(broken.hint_text().is_some());
    }
}
