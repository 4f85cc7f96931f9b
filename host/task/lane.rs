//! Which nodes may take a task, and the line in which it waits for one of them.

use super::Name;
use std::fmt;

/// Which nodes may run a task, among those that can.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Target {
    #[default]
    Any,
    /// The node of this id.
    Node(Name),
    /// Nodes that have this label.
    Label(Name),
}

impl fmt::Display for Target {
    /// As it ends the name of a lane.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Any => Ok(()),
            Target::Node(id) => write!(f, "@node:{id}"),
            Target::Label(label) => write!(f, "@label:{label}"),
        }
    }
}

/// Where tasks of one type wait that the same nodes may take. As text, `TYPE`, `TYPE@node:ID` or
/// `TYPE@label:LABEL`; no name has an `@`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    pub task_type: Name,
    pub target: Target,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.task_type, self.target)
    }
}

impl Lane {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let name = |text: &str| Name::parse("name", text).ok();
        let Some((task_type, target)) = text.split_once('@') else {
            return Some(Self {
                task_type: name(text)?,
                target: Target::Any,
            });
        };
        let target = match target.split_once(':')? {
            ("node", id) => Target::Node(name(id)?),
            ("label", label) => Target::Label(name(label)?),
            _ => return None,
        };
        Some(Self {
            task_type: name(task_type)?,
            target,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_fuzz as fuzz;

    #[test]
    fn what_is_written_is_read() {
        let name = |text| Name::parse("name", text).unwrap();
        for target in [
            Target::Any,
            Target::Node(name("node:1")),
            Target::Label(name("gpu")),
        ] {
            let task_type = name("word:count");
            let lane = Lane { task_type, target };
            assert_eq!(Lane::parse(&lane.to_string()), Some(lane));
        }
        for bad in [
            "",
            "@",
            "a@",
            "a@x:b",
            "a@node",
            "a@node:",
            "@node:a",
            "a@label:b@c",
        ] {
            assert_eq!(Lane::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn fuzz_lanes() {
        let samples = ["echo", "echo@node:node-1", "word:count@label:gpu"];
        fuzz::each(|near| {
            let given = near.text(&samples);
            if let Some(lane) = Lane::parse(&given) {
                assert_eq!(lane.to_string(), given);
            }
        });
    }
}
