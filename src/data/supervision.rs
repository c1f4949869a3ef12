//! Finds the text of each turn in a rendered conversation, for any template.
//!
//! A template is a program without marks for what the model is to learn. What an assistant turn adds is found by
//! rendering growing prefixes of the conversation: the rendering up to the turn, with the generation prompt, must be a
//! prefix of the whole rendering, and so must the rendering that includes the turn. The text between the two is what
//! the model has to write, its end-of-turn token included.

use super::message::Message;
use super::template::{ChatTemplate, Conversation};
use crate::config::TrainOn;
use crate::error::{Error, Result};
use serde_json::Value;
use std::ops::Range;

/// A rendered conversation and the turns in it whose training differs from `otherwise`.
#[derive(Debug)]
pub(crate) struct Rendering {
    pub text: String,
    /// Whether text outside of all `turns` is trained.
    pub otherwise: bool,
    /// Byte ranges of the text, in order.
    pub turns: Vec<Turn>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub range: Range<usize>,
    pub trained: bool,
}

/// Renders a conversation and locates the turns that matter for `train_on`. Messages before `prompt_length` are not
/// trained unless they say so themselves.
pub(crate) fn render_turns(
    template: &ChatTemplate,
    messages: &[Message],
    tools: Option<&Value>,
    prompt_length: usize,
    train_on: TrainOn,
) -> Result<Rendering> {
    let conversation = Conversation::new(messages, tools);
    let text = template.render_prefix(&conversation, messages.len(), false)?;
    let otherwise = train_on == TrainOn::All;
    let last = messages.iter().rposition(Message::is_assistant);
    let mut turns = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let selected = match train_on {
            TrainOn::All => true,
            TrainOn::Assistant => message.is_assistant() && index >= prompt_length,
            TrainOn::Last => Some(index) == last && index >= prompt_length,
        };
        let trained = message.train.unwrap_or(selected);
        if trained != otherwise {
            let range = turn_range(template, &conversation, &text, index, message.is_assistant())
                .map_err(|error| error.context(format!("messages[{index}]")))?;
            turns.push(Turn { range, trained });
        }
    }
    Ok(Rendering { text, otherwise, turns })
}

/// Bytes of `text` that message `index` adds to the messages before it. The header of an assistant turn belongs to the
/// prompt; other turns are taken with their headers.
fn turn_range(
    template: &ChatTemplate,
    conversation: &Conversation,
    text: &str,
    index: usize,
    is_assistant: bool,
) -> Result<Range<usize>> {
    let start = if index == 0 && !is_assistant {
        0
    } else {
        let before = template
            .render_prefix(conversation, index, is_assistant)
            .map_err(|error| error.context("while rendering the turns before it"))?;
        prefix_length(&before, text)?
    };
    let through = template.render_prefix(conversation, index + 1, false)?;
    let end = prefix_length(&through, text)?;
    if start > end {
        return Err(Error::data("the chat template prints less with this turn than without it"));
    }
    Ok(start..end)
}

fn prefix_length(prefix: &str, text: &str) -> Result<usize> {
    if text.starts_with(prefix) {
        return Ok(prefix.len());
    }
    let same = prefix.bytes().zip(text.bytes()).take_while(|(left, right)| left == right).count();
    let excerpt = |text: &str| {
        let start = (0..=same.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text[start..].chars().take(24).collect::<String>()
    };
    Err(Error::data(format!(
        "the chat template prints earlier turns differently once later ones follow ({:?} became {:?}), so that the \
         trained text cannot be found",
        excerpt(prefix),
        excerpt(text)
    ))
    .hint(
        "set data.train_on = \"last\", give each answer a row of its own, or set data.chat_template to a template \
         that leaves earlier turns as they were",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SpecialTokens;

    const CHATML: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}\
                          {% if add_generation_prompt %}<assistant>{% endif %}";
    const REWRITING: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content if loop.last else m.content | upper }}\
                             {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

    fn conversation() -> Vec<Message> {
        [("system", "S"), ("user", "q"), ("assistant", "one"), ("user", "r"), ("assistant", "two")]
            .map(|(role, content)| Message::new(role, content))
            .into()
    }

    fn marked(
        template: &str,
        messages: &[Message],
        prompt_length: usize,
        train_on: TrainOn,
    ) -> Result<String> {
        let template = ChatTemplate::new(template, &SpecialTokens::default(), 0)?;
        let mut rendering = render_turns(&template, messages, None, prompt_length, train_on)?;
        for turn in rendering.turns.iter().rev() {
            rendering.text.insert(turn.range.end, if turn.trained { ']' } else { ')' });
            rendering.text.insert(turn.range.start, if turn.trained { '[' } else { '(' });
        }
        Ok(rendering.text)
    }

    #[test]
    fn assistant_turns_are_found_without_their_headers() {
        let marked = |prompt, train_on| marked(CHATML, &conversation(), prompt, train_on).unwrap();
        let every = "<system>S</><user>q</><assistant>[one</>]<user>r</><assistant>[two</>]";
        let last = "<system>S</><user>q</><assistant>one</><user>r</><assistant>[two</>]";
        assert_eq!(marked(0, TrainOn::Assistant), every);
        assert_eq!(marked(0, TrainOn::Last), last);
        assert_eq!(marked(4, TrainOn::Assistant), last);
        assert_eq!(marked(0, TrainOn::All), last.replace(['[', ']'], ""));
    }

    #[test]
    fn a_message_decides_for_itself() {
        let mut messages = conversation();
        messages[2].train = Some(false);
        let without_first = marked(CHATML, &messages, 0, TrainOn::Assistant).unwrap();
        assert_eq!(without_first, "<system>S</><user>q</><assistant>one</><user>r</><assistant>[two</>]");
        let all = marked(CHATML, &messages, 0, TrainOn::All).unwrap();
        assert_eq!(all, "<system>S</><user>q</><assistant>(one</>)<user>r</><assistant>two</>");
        messages[0].train = Some(true);
        let system = marked(CHATML, &messages, 0, TrainOn::Last).unwrap();
        assert_eq!(system, "[<system>S</>]<user>q</><assistant>one</><user>r</><assistant>[two</>]");
    }

    #[test]
    fn rewritten_history_is_refused_but_the_last_turn_is_found() {
        let error = marked(REWRITING, &conversation(), 0, TrainOn::Assistant).unwrap_err();
        assert!(
            error.to_string().contains("messages[2]: the chat template prints earlier turns differently"),
            "{error}"
        );
        assert!(error.hint_text().unwrap().contains("last"));
        let short = &conversation()[3..];
        assert!(marked(REWRITING, short, 0, TrainOn::Last).is_err());
    }
}
