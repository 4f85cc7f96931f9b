//! The limits of the model's requests, and what they leave. A rate gives a permit a day, so that within a run
//! of the model only what was spent counts.

use super::{
    known::{GROUPS, Known},
    order::Allowance,
};
use crate::conformance::helpers::*;
use fastrand::Rng;
use hostel_task::{GroupLimits, Limits};
use std::collections::{BTreeMap, HashMap};

/// A type, or one of its groups.
type Scope = (&'static str, Option<Name>);

/// What rates have given out.
#[derive(Default)]
pub(super) struct Spent(BTreeMap<Scope, usize>);

/// The limits of a request, by type.
pub(super) struct RandomLimits(BTreeMap<&'static str, OfType>);

/// The limits of one type.
#[derive(Default)]
struct OfType {
    all: Limits,
    groups: Option<GroupLimits>,
}

/// How many of a limit of `max` are left; any number without one.
fn left(max: Option<usize>, taken: usize) -> usize {
    max.map_or(usize::MAX, |max| max.saturating_sub(taken))
}

fn burst(limits: &Limits) -> Option<usize> {
    let burst = limits.max_rate?.burst();
    Some(usize::try_from(burst).unwrap_or(usize::MAX))
}

fn any_limits(random: &mut Rng) -> Limits {
    let rate = random.bool().then(|| {
        let rate = format!("1/d burst {}", random.u32(1..300));
        rate.parse().unwrap()
    });
    Limits {
        max_concurrency: None,
        max_cluster_concurrency: random.bool().then(|| random.usize(1..12)),
        max_rate: rate,
        max_pending: None,
    }
}

impl OfType {
    /// Mostly none.
    fn any(random: &mut Rng) -> Self {
        let mut limits = Self::default();
        if random.u8(..3) == 0 {
            limits.all = any_limits(random);
        }
        if random.u8(..3) == 0 {
            let each = Limits {
                max_concurrency: random.bool().then(|| random.usize(1..5)),
                ..any_limits(random)
            };
            let mut named = HashMap::new();
            if random.bool() {
                named.insert(name(GROUPS[0]), any_limits(random));
            }
            limits.groups = Some(GroupLimits { each, named });
        }
        limits
    }
}

impl RandomLimits {
    /// Limits of some of the types.
    pub fn any(types: &[(&'static str, usize)], random: &mut Rng) -> Self {
        let limits = types
            .iter()
            .map(|&(task_type, _)| (task_type, OfType::any(random)));
        Self(limits.collect())
    }

    /// Sets these limits in a request.
    pub fn apply(&self, request: &mut LeaseRequest) {
        let types = Arc::make_mut(&mut request.types);
        for (task_type, limits) in &self.0 {
            let requested = types.get_mut(&name(task_type)).unwrap();
            requested.max_cluster_concurrency = limits.all.max_cluster_concurrency;
            requested.max_rate = limits.all.max_rate;
            requested.groups = limits.groups.clone().map(Arc::new);
        }
    }

    /// Restricts what the request may be given.
    pub fn restrict(
        &self,
        allowance: &mut Allowance,
        tasks: &BTreeMap<Name, Known>,
        spent: &Spent,
    ) {
        for (&task_type, limits) in &self.0 {
            let running = count_running(tasks, task_type, None);
            let of_type = left(limits.all.max_cluster_concurrency, running)
                .min(left(burst(&limits.all), spent.of(task_type, None)));
            let remaining = allowance.remaining.entry(task_type).or_default();
            *remaining = of_type.min(*remaining);
            let Some(groups) = &limits.groups else {
                continue;
            };
            for group in GROUPS.map(name) {
                let limits = groups.of(&group);
                let running = count_running(tasks, task_type, Some(&group));
                let of_group = left(limits.max_concurrency, running)
                    .min(left(limits.max_cluster_concurrency, running))
                    .min(left(burst(limits), spent.of(task_type, Some(&group))));
                allowance.in_groups.insert((task_type, group), of_group);
            }
        }
    }

    /// Spends the permits of a task that is leased.
    pub fn spend(&self, known: &Known, spent: &mut Spent) {
        let limits = &self.0[known.task_type];
        if limits.all.max_rate.is_some() {
            *spent.0.entry((known.task_type, None)).or_default() += 1;
        }
        if let (Some(group), Some(groups)) = (&known.options.group, &limits.groups)
            && groups.of(group).max_rate.is_some()
        {
            let scope = (known.task_type, Some(group.clone()));
            *spent.0.entry(scope).or_default() += 1;
        }
    }
}

impl Spent {
    fn of(&self, task_type: &'static str, group: Option<&Name>) -> usize {
        let spent = self.0.get(&(task_type, group.cloned()));
        spent.copied().unwrap_or_default()
    }
}

fn count_running(tasks: &BTreeMap<Name, Known>, task_type: &str, group: Option<&Name>) -> usize {
    let running = tasks.values().filter(|known| {
        known.state == StateKind::Running
            && known.task_type == task_type
            && (group.is_none() || known.options.group.as_ref() == group)
    });
    running.count()
}
