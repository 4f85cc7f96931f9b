//! Lists task types with their limits, and changes the limits: the calls of `TypeService` about that.

use crate::{
    api::{
        convert,
        status::{self, IntoStatus},
    },
    proto::hostel::v1,
    scheduler::types::{Error, TypeStatus, Types},
    task::{
        GivenLimits, LimitInForce, LimitScope, LimitTexts, LimitsInForce, Name, StateKind,
        Violations,
    },
};
use std::{fmt::Display, ops::Bound};
use tonic::Status;

/// The most types, or groups of one type, of a page, and its size if the request does not set one.
const MAX_PAGE_SIZE: u32 = 100;

fn known(types: Option<&Types>) -> Result<&Types, Status> {
    types.ok_or_else(|| Error::NoStore.into_status())
}

pub async fn list(
    types: Option<&Types>,
    request: v1::ListTypesRequest,
) -> Result<v1::ListTypesResponse, Status> {
    let types = known(types)?;
    let after = convert::optional_name("page token", &request.page_token)?;
    let size = match request.page_size {
        0 => MAX_PAGE_SIZE,
        given => given.min(MAX_PAGE_SIZE),
    };
    let size = size as usize;
    let task_type = convert::optional_name("task type", &request.task_type)?;
    let (listed, next) = match task_type {
        None => {
            let listed = types.list(after.as_ref(), size).await;
            let (listed, next) = listed.map_err(IntoStatus::into_status)?;
            (listed.iter().map(without_groups).collect(), next)
        }
        Some(name) => {
            let found = types.get(name).await.map_err(IntoStatus::into_status)?;
            let (listed, next) = with_groups(&found, after.as_ref(), size);
            (vec![listed], next)
        }
    };
    Ok(v1::ListTypesResponse {
        types: listed,
        next_page_token: next.map(String::from).unwrap_or_default(),
    })
}

pub async fn set(
    types: Option<&Types>,
    request: v1::SetLimitsRequest,
) -> Result<v1::SetLimitsResponse, Status> {
    let types = known(types)?;
    let mut violations = Violations::default();
    let task_type = violations.name("task_type", "task type", &request.task_type);
    let group = violations.optional_name("group", "group", &request.group);
    if request.each_group && !request.group.is_empty() {
        violations.refuse("each_group", "give a group or each_group, not both");
    }
    let texts = LimitTexts {
        max_concurrency: request.max_concurrency,
        max_cluster_concurrency: request.max_cluster_concurrency,
        max_rate: request.max_rate,
        max_pending: request.max_pending,
    };
    let change = GivenLimits::parse(&texts).unwrap_or_else(|faults| {
        violations.0.extend(faults.0);
        GivenLimits::default()
    });
    if violations.is_empty() && change.is_empty() && !request.reset {
        violations.refuse("max_rate", "give a limit, or reset");
    }
    let (Some(task_type), true) = (task_type, violations.is_empty()) else {
        return Err(violations.into_status());
    };
    let scope = match &group {
        Some(group) => LimitScope::Group(task_type.clone(), group.clone()),
        None if request.each_group => LimitScope::EachGroup(task_type.clone()),
        None => LimitScope::Type(task_type.clone()),
    };
    let set = types.set_limits(&scope, change, request.reset).await;
    set.map_err(IntoStatus::into_status)?;
    let status = types.get(task_type).await.map_err(status::limits_unread)?;
    let mut answer = without_groups(&status);
    if let Some(group) = group {
        let limits = status.limits.of_group.get(&group);
        let limits = limits.unwrap_or(&status.limits.of_each_group);
        answer.groups.push(group_limits(&group, limits));
    }
    Ok(v1::SetLimitsResponse {
        r#type: Some(answer),
    })
}

fn without_groups(status: &TypeStatus) -> v1::TypeStatus {
    let limited_groups = status.limits.of_group.len();
    v1::TypeStatus {
        name: status.name.to_string(),
        nodes: status.nodes.iter().map(Name::to_string).collect(),
        pending: status.count(StateKind::Pending),
        running: status.count(StateKind::Running),
        completed: status.count(StateKind::Completed),
        failed: status.count(StateKind::Failed),
        cancelled: status.count(StateKind::Cancelled),
        limits: Some(limits(&status.limits.of_type)),
        each_group: Some(limits(&status.limits.of_each_group)),
        limited_groups: u32::try_from(limited_groups).unwrap_or(u32::MAX),
        groups: Vec::new(),
    }
}

/// A type with a page of its groups, and the group that the next page follows.
fn with_groups(
    status: &TypeStatus,
    after: Option<&Name>,
    size: usize,
) -> (v1::TypeStatus, Option<Name>) {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = status
        .limits
        .of_group
        .range::<Name, _>((from, Bound::Unbounded));
    let page: Vec<_> = rest.by_ref().take(size).collect();
    let last = page.last().filter(|_| rest.next().is_some());
    let next = last.map(|(group, _)| (*group).clone());
    let mut listed = without_groups(status);
    listed.groups = page
        .into_iter()
        .map(|(group, limits)| group_limits(group, limits))
        .collect();
    (listed, next)
}

fn group_limits(group: &Name, in_force: &LimitsInForce) -> v1::GroupLimits {
    v1::GroupLimits {
        group: group.to_string(),
        limits: Some(limits(in_force)),
    }
}

fn limits(in_force: &LimitsInForce) -> v1::Limits {
    v1::Limits {
        max_concurrency: in_force.max_concurrency.map(limit),
        max_cluster_concurrency: in_force.max_cluster_concurrency.map(limit),
        max_rate: in_force.max_rate.map(limit),
        max_pending: in_force.max_pending.map(limit),
    }
}

fn limit<T: Display>(in_force: LimitInForce<T>) -> v1::Limit {
    v1::Limit {
        value: in_force.limit.to_string(),
        origin: in_force.origin.as_str().into(),
    }
}
