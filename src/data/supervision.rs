//! Finds the text of each turn in a rendered conversation, for any template.
//!
//! A template is a program without marks for what the model is to learn. What an assistant turn adds is found by
//! rendering growing prefixes of the conversation: the rendering up to the turn, with the generation prompt, must be a
//! prefix of the whole rendering, and so must the rendering that includes the turn. The text between the two is what
//! the model has to write, its end-of-turn token included.
//!
//! Some templates print earlier turns differently once later ones follow; they leave out the thinking of past answers,
//! for example. A turn that the whole rendering has changed is trained in a rendering of its own, which ends with it:
//! exactly what the model reads and writes when it answers there. Turns share renderings where they can.

use super::message::Message;
use super::row::ChatRow;
use super::template::{ChatTemplate, Conversation};
use crate::config::TrainOn;
use crate::error::{Error, Result};
use std::ops::Range;

/// Text of all renderings of one conversation, in bytes. Renderings of their own take memory that grows with the square
/// of the number of turns.
const MAX_RENDERED_BYTES: usize = 128_000_000;

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

/// Renders a conversation and locates the turns that matter for `train_on`, each in one of the renderings. There are
/// several only where the template rewrites earlier turns; the last one then is the longest.
pub(crate) fn render_turns(
    template: &ChatTemplate,
    row: &ChatRow,
    train_on: TrainOn,
) -> Result<Vec<Rendering>> {
    let conversation = Conversation::new(&row.messages, row.tools.as_ref());
    let text = template.render_prefix(&conversation, row.messages.len(), false)?;
    let otherwise = train_on == TrainOn::All;
    let mut rendered_bytes = text.len();
    let mut current = Rendering { text, otherwise, turns: Vec::new() };
    let mut renderings = Vec::new();
    for (index, trained) in decisions(row, train_on).into_iter().enumerate().rev() {
        if trained == otherwise {
            continue;
        }
        let in_row = |error: Error| error.context(format!("messages[{index}]"));
        let turn = TurnText::render(template, &conversation, index, row.messages[index].is_assistant())
            .map_err(in_row)?;
        let range = match turn.locate(&current.text) {
            Err(_) if !otherwise => {
                let range = turn.locate(&turn.through).map_err(in_row)?;
                rendered_bytes += turn.through.len();
                check_rendered_bytes(rendered_bytes)?;
                let own = Rendering { text: turn.through, otherwise, turns: Vec::new() };
                renderings.push(std::mem::replace(&mut current, own));
                range
            }
            found => found.map_err(in_row)?,
        };
        current.turns.push(Turn { range, trained });
    }
    renderings.push(current);
    if renderings.len() > 1 {
        renderings.retain(|rendering| !rendering.turns.is_empty());
    }
    renderings.reverse();
    renderings.iter_mut().for_each(|rendering| rendering.turns.reverse());
    Ok(renderings)
}

/// Whether each message is trained.
fn decisions(row: &ChatRow, train_on: TrainOn) -> Vec<bool> {
    let last = row.messages.iter().rposition(Message::is_assistant);
    let decide = |(index, message): (usize, &Message)| {
        let answer = message.is_assistant() && index >= row.prompt_length;
        let selected = match train_on {
            TrainOn::All => true,
            TrainOn::Assistant => answer,
            TrainOn::Last => answer && Some(index) == last,
            TrainOn::Completion => answer && index >= row.completion_start,
        };
        message.train.unwrap_or(selected)
    };
    row.messages.iter().enumerate().map(decide).collect()
}

fn check_rendered_bytes(bytes: usize) -> Result<()> {
    if bytes <= MAX_RENDERED_BYTES {
        return Ok(());
    }
    Err(Error::data(format!(
        "the chat template rewrites earlier turns, and rendering each turn by itself makes more than {} MB of text",
        MAX_RENDERED_BYTES / 1_000_000
    ))
    .hint("set data.train_on = \"last\", or split the conversation into several rows"))
}

/// What surrounds the text of one turn.
struct TurnText {
    /// The conversation before the turn. The header of an assistant turn belongs to it; other turns are taken with
    /// their headers.
    before: String,
    /// The conversation with the turn.
    through: String,
}

impl TurnText {
    fn render(
        template: &ChatTemplate,
        conversation: &Conversation,
        index: usize,
        is_assistant: bool,
    ) -> Result<Self> {
        let before = match (index, is_assistant) {
            (0, false) => String::new(),
            (0, true) => template.render_prefix(conversation, 0, true).map_err(|error| {
                Error::data(format!(
                    "the conversation starts with an answer, and without a turn before it {error}"
                ))
                .hint("start the conversation with a user turn, or give this turn \"train\": false")
            })?,
            _ => template
                .render_prefix(conversation, index, is_assistant)
                .map_err(|error| error.context("while rendering the turns before it"))?,
        };
        Ok(Self { before, through: template.render_prefix(conversation, index + 1, false)? })
    }

    /// Bytes of `text` that the turn adds to the messages before it.
    fn locate(&self, text: &str) -> Result<Range<usize>> {
        let start = prefix_length(&self.before, text)?;
        let end = prefix_length(&self.through, text)?;
        if start > end {
            return Err(Error::data("the chat template prints less with this turn than without it")
                .hint("set data.chat_template to a template that prints every turn"));
        }
        Ok(start..end)
    }
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
        "set data.train_on = \"last\" or \"all\", or set data.chat_template to a template that prints the turns before an \
         answer as it prints them without it",
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
        let row = ChatRow {
            messages: messages.to_vec(),
            tools: None,
            prompt_length,
            completion_start: prompt_length,
        };
        let mut renderings = render_turns(&template, &row, train_on)?;
        for rendering in &mut renderings {
            for turn in rendering.turns.iter().rev() {
                rendering.text.insert(turn.range.end, if turn.trained { ']' } else { ')' });
                rendering.text.insert(turn.range.start, if turn.trained { '[' } else { '(' });
            }
        }
        Ok(renderings.into_iter().map(|rendering| rendering.text).collect::<Vec<_>>().join("\n"))
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

    /// Leaves out what stands before a `|` in answers that are not the last message.
    const FORGETFUL: &str = "{% for m in messages %}<{{ m.role }}>\
        {{ m.content if loop.last or m.role != 'assistant' else m.content.split('|')[-1] }}</>{% endfor %}\
        {% if add_generation_prompt %}<assistant>{% endif %}";

    #[test]
    fn turns_that_later_ones_rewrite_are_trained_in_renderings_of_their_own() {
        let mut messages = conversation();
        messages[2] = Message::new("assistant", "why|one");
        messages.push(Message::new("user", "s"));
        messages.push(Message::new("assistant", "plain"));
        let texts = marked(FORGETFUL, &messages, 0, TrainOn::Assistant).unwrap();
        let expected = "<system>S</><user>q</><assistant>[why|one</>]\n\
                        <system>S</><user>q</><assistant>one</><user>r</><assistant>[two</>]<user>s</>\
                        <assistant>[plain</>]";
        assert_eq!(texts, expected);
        let last = marked(FORGETFUL, &messages, 0, TrainOn::Last).unwrap();
        assert!(
            last.starts_with("<system>S</><user>q</><assistant>one</>") && !last.contains('\n'),
            "{last}"
        );
        messages[2].train = Some(false);
        assert!(marked(FORGETFUL, &messages, 0, TrainOn::All).is_err());
    }

    #[test]
    fn a_template_that_changes_the_question_is_refused() {
        let error = marked(REWRITING, &conversation(), 0, TrainOn::Assistant).unwrap_err();
        assert!(
            error.to_string().contains("messages[4]: the chat template prints earlier turns differently"),
            "{error}"
        );
        assert!(error.hint_text().unwrap().contains("last"));
        assert!(marked(REWRITING, &conversation(), 0, TrainOn::All).is_ok());
    }
}
