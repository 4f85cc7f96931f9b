//! The target of a task, which says where it may run, and its route: its type and its target.

use super::name::Name;
use std::fmt;

/// Which nodes may run a task, among those that have its plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Target {
    /// Any node.
    #[default]
    Any,
    /// The node with this id.
    Node(Name),
    /// Nodes with this label.
    Label(Name),
}

impl Target {
    /// Returns whether a node with this id and these labels may run the task.
    pub fn includes(&self, node: &Name, labels: &[Name]) -> bool {
        match self {
            Target::Any => true,
            Target::Node(id) => id == node,
            Target::Label(label) => labels.contains(label),
        }
    }

    /// Returns the targets that include a node with this id and these labels.
    pub fn including(node: &Name, labels: &[Name]) -> impl Iterator<Item = Target> {
        let targets = [Target::Any, Target::Node(node.clone())];
        targets
            .into_iter()
            .chain(labels.iter().cloned().map(Target::Label))
    }
}

impl fmt::Display for Target {
    /// Writes the suffix of a route.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Any => Ok(()),
            Target::Node(id) => write!(f, "@node:{id}"),
            Target::Label(label) => write!(f, "@label:{label}"),
        }
    }
}

/// A task type and its target: tasks of one route can be leased by the same nodes. Its text is `TYPE`,
/// `TYPE@node:ID` or `TYPE@label:LABEL`; names contain no `@`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The task type.
    pub task_type: Name,
    /// The target.
    pub target: Target,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.task_type, self.target)
    }
}

impl Route {
    /// Parses the text that `Display` writes.
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

    #[test]
    fn a_target_includes_any_node_one_node_or_the_nodes_with_a_label() {
        let name = |text| Name::parse("name", text).unwrap();
        let (node, labels) = (name("n"), [name("gpu"), name("eu")]);
        let included = [
            Target::Any,
            Target::Node(name("n")),
            Target::Label(name("gpu")),
            Target::Label(name("eu")),
        ];
        assert!(Target::including(&node, &labels).eq(included.clone()));
        for target in included {
            assert!(target.includes(&node, &labels), "{target}");
        }
        // An id is no label, and a label is no id.
        for target in [Target::Node(name("gpu")), Target::Label(name("n"))] {
            assert!(!target.includes(&node, &labels), "{target}");
        }
    }

    #[test]
    fn routes_survive_a_round_trip_through_text() {
        let name = |text| Name::parse("name", text).unwrap();
        for target in [
            Target::Any,
            Target::Node(name("node:1")),
            Target::Label(name("gpu")),
        ] {
            let task_type = name("word:count");
            let route = Route { task_type, target };
            assert_eq!(Route::parse(&route.to_string()), Some(route));
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
            assert_eq!(Route::parse(bad), None, "{bad}");
        }
    }
}
