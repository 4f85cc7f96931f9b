//! The progress of an attempt, which comes with the renewals of its lease.

use super::helpers::*;
use hostel_task::MAX_NOTE_BYTES;

/// Renews a lease, with or without new progress.
async fn renew(queue: &dyn TaskQueue, token: &LeaseToken, progress: Option<Progress>) -> Renewal {
    let token = token.clone();
    let answers = queue.renew(&[Renew { token, progress }], HOUR).await;
    answers.unwrap().remove(0)
}

/// Asserts what every way of reading a task says of its progress.
async fn reads(queue: &dyn TaskQueue, id: &str, expected: Option<&Progress>) {
    let task = get(queue, id).await;
    assert_eq!(task.progress.as_ref(), expected);
    let status = queue.get_status(&name(id), 1 << 20).await.unwrap();
    let Some(StatusRead::Task(status)) = &status else {
        panic!("{status:?}");
    };
    assert_eq!(status.progress.as_ref(), expected);
    let listed = list_all(queue, &Filter::default(), 10).await;
    let listed = listed.iter().find(|task| task.id.as_str() == id).unwrap();
    assert_eq!(listed.progress.as_ref(), expected);
}

pub(super) async fn a_renewal_stores_the_progress_of_its_attempt(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    reads(queue, "t", None).await;
    let token = lease_one(queue, "echo").await.token;
    create(queue, "other", "echo").await;
    assert_eq!(renew(queue, &token, None).await, Renewal::Held);
    reads(queue, "t", None).await;
    for progress in [
        Progress::new(0, 0, ""),
        Progress::new(3, 10, "rows of 日本"),
        Progress::new(u64::MAX, u64::MAX, "\u{1b}[2J \0 \"{}\" \r\n 1 2 3"),
        Progress::new(7, 5, &"é".repeat(MAX_NOTE_BYTES)),
    ] {
        let answer = renew(queue, &token, Some(progress.clone())).await;
        assert_eq!(answer, Renewal::Held);
        reads(queue, "t", Some(&progress)).await;
        // A renewal without progress leaves it as it is.
        assert_eq!(renew(queue, &token, None).await, Renewal::Held);
        reads(queue, "t", Some(&progress)).await;
        assert_eq!(kind(queue, "t").await, StateKind::Running);
    }
    reads(queue, "other", None).await;
}

pub(super) async fn a_stale_token_reports_no_progress(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    let stale = lease_one(queue, "echo").await.token;
    finish_one(queue, &stale, retry(Duration::ZERO, "again")).await;
    let progress = Some(Progress::new(1, 2, "too late"));
    assert_eq!(renew(queue, &stale, progress.clone()).await, Renewal::Lost);
    reads(queue, "t", None).await;
    tick().await;
    lease_one(queue, "echo").await;
    assert_eq!(renew(queue, &stale, progress).await, Renewal::Lost);
    reads(queue, "t", None).await;
}

pub(super) async fn progress_is_kept_until_the_next_attempt(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    for outcome in [
        retry(Duration::ZERO, "again"),
        Outcome::Released,
        Outcome::Lost {
            after: Duration::ZERO,
            error: "its node died".into(),
        },
        failed("no"),
        Outcome::Cancelled,
        completed(b"done"),
    ] {
        let token = lease_one(queue, "echo").await.token;
        // An attempt begins without the progress of the one before.
        reads(queue, "t", None).await;
        let progress = Progress::new(token.fence, 0, "of one attempt");
        renew(queue, &token, Some(progress.clone())).await;
        let applied = finish_one(queue, &token, outcome.clone()).await;
        assert_eq!(applied, Finished::Applied);
        reads(queue, "t", Some(&progress)).await;
        if matches!(outcome, Outcome::Failed { .. } | Outcome::Cancelled) {
            let requeued = queue.requeue(&name("t")).await.unwrap();
            assert_eq!(requeued, Requeue::Requeued);
        }
        tick().await;
    }
    // An id that is used again begins without it, too.
    for by_operator in [false, true] {
        if by_operator {
            let acted = queue.act(&Action::Purge, &[name("t")]).await;
            assert_eq!(acted.unwrap(), [Acted::Done]);
        } else {
            let all = Retention::of(Duration::ZERO);
            assert_eq!(queue.purge(&all, 10).await.unwrap(), 1);
        }
        create(queue, "t", "echo").await;
        reads(queue, "t", None).await;
        let token = lease_one(queue, "echo").await.token;
        reads(queue, "t", None).await;
        renew(queue, &token, Some(Progress::new(1, 2, "half"))).await;
        finish_one(queue, &token, completed(b"done")).await;
        tick().await;
    }
}

pub(super) async fn a_task_to_be_cancelled_still_reports_progress(queue: &dyn TaskQueue) {
    create(queue, "t", "echo").await;
    let token = lease_one(queue, "echo").await.token;
    queue.cancel(&name("t")).await.unwrap();
    let progress = Progress::new(1, 2, "cleaning up");
    let answer = renew(queue, &token, Some(progress.clone())).await;
    assert_eq!(answer, Renewal::CancelRequested);
    reads(queue, "t", Some(&progress)).await;
}
