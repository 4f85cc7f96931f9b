//! The fields of an event: changes that one script has made, and the number of the first one. `layout.md`
//! documents them.

use super::record;
use crate::Change;
use hostel_task::{Name, StateKind};

/// The letter of a task whose record was found to be damaged.
pub(super) const DAMAGED: u8 = b'd';

/// The letter of the number of the first change.
const NUMBER: &str = "#";

/// An event.
pub(super) struct Event {
    /// The number of the first change, if somebody follows the changes.
    pub first: Option<u64>,
    /// The letter of each change, and the change unless it is malformed.
    pub changes: Vec<(u8, Option<Change>)>,
}

impl Event {
    /// Parses the fields behind the queue: a letter for a state, perhaps with a node, and the type and the tasks
    /// that have entered the state, in turn.
    pub fn parse(fields: &[String]) -> Self {
        let (mut first, mut changes) = (None, Vec::new());
        for field in fields.chunks_exact(2) {
            let [state, text] = field else { continue };
            if state == NUMBER {
                first = text.parse().ok();
                continue;
            }
            let (state, node) = state.split_once(' ').unwrap_or((state, ""));
            let letter = state.as_bytes().first().copied().unwrap_or_default();
            let state = match letter {
                0 => None,
                DAMAGED => Some(StateKind::Failed),
                // `k` is a running task whose cancellation was requested.
                letter => Some(record::state([letter]).unwrap_or(StateKind::Running)),
            };
            let node = name(node);
            let mut words = text.split(' ');
            let of = state.zip(words.next().and_then(name));
            changes.extend(
                words
                    .map(|word| {
                        let (state, task_type) = of.as_ref()?;
                        let change = parse_task(word, *state, task_type)?;
                        Some(Change {
                            cancel_requested: letter == b'k',
                            node: node.clone(),
                            ..change
                        })
                    })
                    .map(|change| (letter, change)),
            );
        }
        Self { first, changes }
    }

    /// The changes that are not malformed, each with its letter.
    pub fn sound(self) -> impl Iterator<Item = (u8, Change)> {
        let changes = self.changes.into_iter();
        changes.filter_map(|(letter, change)| Some((letter, change?)))
    }
}

/// Parses what an event has of a task: its id, `#` and the number of the attempt unless that is 1, and `/` and its
/// group if it has one. A pending task without a number has no attempt.
fn parse_task(word: &str, state: StateKind, task_type: &Name) -> Option<Change> {
    let (task, group) = word.split_once('/').unwrap_or((word, ""));
    let (id, attempt) = task.split_once('#').unwrap_or((task, ""));
    let default = u32::from(state != StateKind::Pending);
    Some(Change {
        attempt: attempt.parse().unwrap_or(default),
        group: name(group),
        ..Change::new(name(id)?, task_type.clone(), state)
    })
}

fn name(text: &str) -> Option<Name> {
    Name::parse("name", text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &[&str]) -> Event {
        let fields: Vec<String> = fields.iter().map(|&field| field.to_owned()).collect();
        Event::parse(&fields)
    }

    #[test]
    fn an_event_has_the_changes_of_a_script() {
        let event = parse(&[
            "r node-1",
            "echo a b:1#2/g",
            "p",
            "echo c/g d",
            "x",
            "echo e#0",
            "k n",
            "echo f",
            "#",
            "41",
        ]);
        assert_eq!(event.first, Some(41));
        let seen: Vec<String> = event
            .sound()
            .map(|(letter, c)| {
                let text = |name: Option<Name>| name.map_or("-".into(), |name| name.to_string());
                let (node, group) = (text(c.node), text(c.group));
                let letter = char::from(letter);
                format!("{letter} {} {} {} {node} {group}", c.id, c.state, c.attempt)
            })
            .collect();
        assert_eq!(
            seen,
            [
                "r a running 1 node-1 -",
                "r b:1 running 2 node-1 g",
                "p c pending 0 - g",
                "p d pending 0 - -",
                "x e cancelled 0 - -",
                "k f running 1 n -",
            ]
        );
    }

    #[test]
    fn what_is_malformed_is_skipped_and_counts() {
        let event = parse(&[
            "p",
            "echo a b$",
            "",
            "x y",
            "k",
            "/ c",
            "d",
            "echo f",
            "c",
            "",
            "#",
            "x",
            "r",
        ]);
        assert_eq!((event.first, event.changes.len()), (None, 5));
        let sound: Vec<_> = event
            .sound()
            .map(|(letter, c)| (letter, c.id.to_string()))
            .collect();
        assert_eq!(sound, [(b'p', "a".to_owned()), (DAMAGED, "f".to_owned())]);
    }
}
