//! The limits in force of task types and of their groups, by the origins that give them. Which tasks run is
//! counted by the queue backends.

use super::{
    given_limits::{GivenLimit, GivenLimits, Limits},
    name::Name,
    rate::Rate,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// Where a limit comes from. The later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitOrigin {
    /// The plugin declares it.
    Manifest,
    /// The configuration of the node has it.
    Config,
    /// It was set at run time, for each group of the type.
    EachGroup,
    /// It was set at run time.
    Runtime,
}

/// A limit in force, with its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitInForce<T> {
    /// The limit.
    pub limit: GivenLimit<T>,
    /// Where it comes from.
    pub origin: LimitOrigin,
}

/// The limits of a task type or of a group that some origin gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitsInForce {
    /// See [`Limits::max_concurrency`].
    pub max_concurrency: Option<LimitInForce<usize>>,
    /// See [`Limits::max_cluster_concurrency`].
    pub max_cluster_concurrency: Option<LimitInForce<usize>>,
    /// See [`Limits::max_rate`].
    pub max_rate: Option<LimitInForce<Rate>>,
    /// See [`Limits::max_pending`].
    pub max_pending: Option<LimitInForce<usize>>,
}

/// What a set of limits is for. Its text is `TYPE`, `TYPE/*` or `TYPE/GROUP`; names have neither character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitScope {
    /// All tasks of a type together.
    Type(Name),
    /// Each group of a type.
    EachGroup(Name),
    /// One group of a type.
    Group(Name, Name),
}

/// The limits of the groups of a task type. Tasks without a group have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupLimits {
    /// The limits of each group but those below.
    pub each: Limits,
    /// The limits of some groups.
    pub named: HashMap<Name, Limits>,
}

/// The limits in force of a task type and of its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeLimits {
    /// Those of all tasks of the type together.
    pub of_type: LimitsInForce,
    /// Those of each group.
    pub of_each_group: LimitsInForce,
    /// Those of the groups that have some of their own.
    pub of_group: BTreeMap<Name, LimitsInForce>,
}

/// The limits that were set at run time, by task type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeLimits(BTreeMap<Name, RuntimeTypeLimits>);

/// The limits of one task type that were set at run time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct RuntimeTypeLimits {
    of_type: GivenLimits,
    of_each_group: GivenLimits,
    of_group: BTreeMap<Name, GivenLimits>,
}

/// What the origins besides the run time give for a task type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeclaredLimits {
    /// The limits that the plugin declares for the type.
    pub manifest: GivenLimits,
    /// The limits of the type in the configuration.
    pub config: GivenLimits,
    /// The limits of each of its groups in the configuration.
    pub config_group: GivenLimits,
}

impl LimitOrigin {
    /// Returns the name as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::EachGroup => "each group",
            Self::Runtime => "run time",
        }
    }
}

impl<T: Copy> LimitInForce<T> {
    /// Returns the limit that `origin` gives, or else the one before.
    fn or(origin: LimitOrigin, given: Option<GivenLimit<T>>, before: Option<Self>) -> Option<Self> {
        given.map(|limit| Self { limit, origin }).or(before)
    }

    fn max(self) -> Option<T> {
        match self.limit {
            GivenLimit::Unlimited => None,
            GivenLimit::Max(limit) => Some(limit),
        }
    }
}

impl LimitsInForce {
    /// Returns these limits with those of a stronger origin in their place.
    fn with(self, origin: LimitOrigin, given: GivenLimits) -> Self {
        Self {
            max_concurrency: LimitInForce::or(origin, given.max_concurrency, self.max_concurrency),
            max_cluster_concurrency: LimitInForce::or(
                origin,
                given.max_cluster_concurrency,
                self.max_cluster_concurrency,
            ),
            max_rate: LimitInForce::or(origin, given.max_rate, self.max_rate),
            max_pending: LimitInForce::or(origin, given.max_pending, self.max_pending),
        }
    }

    /// Returns the limits without their origins.
    pub fn limits(&self) -> Limits {
        Limits {
            max_concurrency: self.max_concurrency.and_then(LimitInForce::max),
            max_cluster_concurrency: self.max_cluster_concurrency.and_then(LimitInForce::max),
            max_rate: self.max_rate.and_then(LimitInForce::max),
            max_pending: self.max_pending.and_then(LimitInForce::max),
        }
    }

    /// Whether no origin gives any.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl LimitScope {
    /// The task type.
    pub fn task_type(&self) -> &Name {
        match self {
            Self::Type(task_type) | Self::EachGroup(task_type) | Self::Group(task_type, _) => {
                task_type
            }
        }
    }

    /// Parses the text that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let name = |text: &str| Name::parse("name", text).ok();
        match text.split_once('/') {
            None => name(text).map(Self::Type),
            Some((task_type, "*")) => name(task_type).map(Self::EachGroup),
            Some((task_type, group)) => Some(Self::Group(name(task_type)?, name(group)?)),
        }
    }
}

impl fmt::Display for LimitScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(task_type) => write!(f, "{task_type}"),
            Self::EachGroup(task_type) => write!(f, "{task_type}/*"),
            Self::Group(task_type, group) => write!(f, "{task_type}/{group}"),
        }
    }
}

impl RuntimeLimits {
    /// Returns what was set for a scope.
    pub fn get(&self, scope: &LimitScope) -> GivenLimits {
        let Some(of_type) = self.0.get(scope.task_type()) else {
            return GivenLimits::default();
        };
        match scope {
            LimitScope::Type(_) => of_type.of_type,
            LimitScope::EachGroup(_) => of_type.of_each_group,
            LimitScope::Group(_, group) => of_type.of_group.get(group).copied().unwrap_or_default(),
        }
    }

    /// Sets the limits of a scope, in the place of those that it had.
    pub fn set(&mut self, scope: &LimitScope, given: GivenLimits) {
        let task_type = scope.task_type();
        let of_type = self.0.entry(task_type.clone()).or_default();
        match scope {
            LimitScope::Type(_) => of_type.of_type = given,
            LimitScope::EachGroup(_) => of_type.of_each_group = given,
            LimitScope::Group(_, group) if given.is_empty() => {
                of_type.of_group.remove(group);
            }
            LimitScope::Group(_, group) => {
                of_type.of_group.insert(group.clone(), given);
            }
        }
        if *of_type == RuntimeTypeLimits::default() {
            self.0.remove(task_type);
        }
    }

    /// Whether none was set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the types for which limits were set, in the order of their names.
    pub fn task_types(&self) -> impl Iterator<Item = &Name> {
        self.0.keys()
    }
}

impl GroupLimits {
    /// Returns the limits of a group.
    pub fn of(&self, group: &Name) -> &Limits {
        self.named.get(group).unwrap_or(&self.each)
    }

    /// Returns the limits of some group, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Limits> {
        [&self.each].into_iter().chain(self.named.values())
    }
}

impl DeclaredLimits {
    /// Returns the limits of all tasks of a type together: what was set at run time before the
    /// configuration, and that before what the plugin declares.
    pub fn of_type(&self, task_type: &Name, runtime: &RuntimeLimits) -> LimitsInForce {
        let set = runtime.0.get(task_type).map(|set| set.of_type);
        LimitsInForce::default()
            .with(LimitOrigin::Manifest, self.manifest)
            .with(LimitOrigin::Config, self.config)
            .with(LimitOrigin::Runtime, set.unwrap_or_default())
    }

    /// Returns the limits of each group of a type.
    fn of_each_group(&self, task_type: &Name, runtime: &RuntimeLimits) -> LimitsInForce {
        let set = runtime.0.get(task_type).map(|set| set.of_each_group);
        LimitsInForce::default()
            .with(LimitOrigin::Config, self.config_group)
            .with(LimitOrigin::EachGroup, set.unwrap_or_default())
    }

    /// Returns the limits of a group: what was set for it before what holds for each.
    pub fn of_group(
        &self,
        task_type: &Name,
        group: &Name,
        runtime: &RuntimeLimits,
    ) -> LimitsInForce {
        let set = runtime.0.get(task_type);
        let set = set.and_then(|set| set.of_group.get(group)).copied();
        self.of_each_group(task_type, runtime)
            .with(LimitOrigin::Runtime, set.unwrap_or_default())
    }
}

impl TypeLimits {
    /// Returns the limits in force of a type and of its groups.
    pub fn new(task_type: &Name, declared: &DeclaredLimits, runtime: &RuntimeLimits) -> Self {
        let groups = runtime.0.get(task_type).map(|set| &set.of_group);
        let groups = groups.into_iter().flat_map(BTreeMap::keys);
        let of_group = groups.map(|group| {
            let limits = declared.of_group(task_type, group, runtime);
            (group.clone(), limits)
        });
        Self {
            of_type: declared.of_type(task_type, runtime),
            of_each_group: declared.of_each_group(task_type, runtime),
            of_group: of_group.collect(),
        }
    }

    /// Returns the limits of the groups, if any group has one.
    pub fn group_limits(&self) -> Option<GroupLimits> {
        let limits = GroupLimits {
            each: self.of_each_group.limits(),
            named: self
                .of_group
                .iter()
                .map(|(group, limits)| (group.clone(), limits.limits()))
                .collect(),
        };
        let is_limited = limits.all().any(|limits| *limits != Limits::default());
        is_limited.then_some(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::given_limits::tests::parse, *};

    fn name(given: &str) -> Name {
        Name::parse("name", given).unwrap()
    }

    #[test]
    fn scopes_survive_a_round_trip_through_text() {
        let scopes = [
            LimitScope::Type(name("word:count")),
            LimitScope::EachGroup(name("echo")),
            LimitScope::Group(name("echo"), name("acme")),
        ];
        for scope in scopes {
            assert_eq!(LimitScope::parse(&scope.to_string()), Some(scope));
        }
        for bad in ["", "/", "a/", "/a", "*", "a/*/b", "a/b/c", "a@node:b"] {
            assert_eq!(LimitScope::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_run_time_wins_over_the_configuration_and_that_over_the_manifest() {
        let declared = DeclaredLimits {
            manifest: parse(["1", "", "", ""]).unwrap(),
            config: parse(["2", "20", "5/s", ""]).unwrap(),
            config_group: parse(["", "", "1/s", "9"]).unwrap(),
        };
        let (echo, acme, other) = (name("echo"), name("acme"), name("other"));
        let limits = |runtime: &RuntimeLimits| TypeLimits::new(&echo, &declared, runtime);
        let mut runtime = RuntimeLimits::default();
        let before = limits(&runtime);
        assert_eq!(before.of_type.limits().max_concurrency, Some(2));
        let origin = before.of_type.max_concurrency.unwrap().origin;
        assert_eq!(origin.as_str(), "config");
        assert_eq!(before.of_type.max_pending, None);

        let of_type = LimitScope::Type(echo.clone());
        runtime.set(&of_type, parse(["3", "none", "", "7"]).unwrap());
        runtime.set(
            &LimitScope::EachGroup(echo.clone()),
            parse(["4", "", "none", ""]).unwrap(),
        );
        let of_acme = LimitScope::Group(echo.clone(), acme.clone());
        runtime.set(&of_acme, parse(["5", "", "3/m", ""]).unwrap());
        let of_another = LimitScope::Type(name("another"));
        runtime.set(&of_another, parse(["6", "", "", ""]).unwrap());
        let set = limits(&runtime);
        let Limits {
            max_concurrency,
            max_cluster_concurrency,
            max_rate,
            max_pending,
        } = set.of_type.limits();
        assert_eq!((max_concurrency, max_cluster_concurrency), (Some(3), None));
        assert_eq!((max_rate, max_pending), ("5/s".parse().ok(), Some(7)));
        let groups = set.group_limits().unwrap();
        assert_eq!(groups.of(&other).max_concurrency, Some(4));
        assert_eq!(groups.of(&other).max_rate, None);
        assert_eq!(groups.of(&acme).max_concurrency, Some(5));
        assert_eq!(groups.of(&acme).max_rate, "3/m".parse().ok());
        assert_eq!(groups.of(&acme).max_pending, Some(9));
        let of_acme_alone = declared.of_group(&echo, &acme, &runtime);
        assert_eq!(set.of_group[&acme], of_acme_alone);
        assert_eq!(
            of_acme_alone.max_pending.unwrap().origin,
            LimitOrigin::Config
        );

        for scope in [&of_type, &of_acme, &of_another] {
            assert!(!runtime.get(scope).is_empty());
            runtime.set(scope, GivenLimits::default());
            assert!(runtime.get(scope).is_empty());
        }
        assert_eq!(runtime.task_types().collect::<Vec<_>>(), [&echo]);
        runtime.set(&LimitScope::EachGroup(echo.clone()), GivenLimits::default());
        assert_eq!(runtime, RuntimeLimits::default());
        assert_eq!(limits(&runtime), before);
    }

    #[test]
    fn groups_without_limits_are_none() {
        let lifted = DeclaredLimits {
            config_group: parse(["none", "", "none", ""]).unwrap(),
            ..DeclaredLimits::default()
        };
        let limits = TypeLimits::new(&name("echo"), &lifted, &RuntimeLimits::default());
        assert!(!limits.of_each_group.is_empty());
        assert_eq!(limits.group_limits(), None);
    }
}
