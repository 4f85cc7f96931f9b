//! Messages arrive whole however they are cut into frames, and one at a time is counted. Responses leave in
//! pieces, and are counted until the last one is dropped.

use super::{
    super::share::Shares,
    request_body::{FIRST_BYTES, PREFIX_BYTES},
    response_body::{PIECE_BYTES, SMALL_BYTES},
    *,
};
use crate::Config;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Body as HttpBody, Frame};
use std::{future::poll_fn, pin::Pin, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tonic::Status;

const MIB: usize = 1 << 20;

/// A body of these frames.
fn body(frames: impl IntoIterator<Item = Bytes>) -> Body {
    let (send, body) = sent();
    for frame in frames {
        send.send(frame).unwrap();
    }
    body
}

fn share() -> Arc<Share> {
    Shares::new(&Config::default().limits).share()
}

async fn next(body: &mut (impl HttpBody<Data = Bytes, Error = Status> + Unpin)) -> Option<Bytes> {
    let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
    frame.unwrap().into_data().ok()
}

fn message(length: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
    message.resize(PREFIX_BYTES + length, fastrand::u8(..));
    message
}

#[tokio::test]
async fn messages_arrive_whole_and_one_at_a_time_is_counted() {
    for _ in 0..50 {
        let lengths = std::iter::repeat_with(|| fastrand::usize(..6 * FIRST_BYTES));
        let stream: Vec<u8> = lengths.take(20).flat_map(message).collect();
        let (mut rest, mut frames) = (Bytes::from(stream.clone()), Vec::new());
        let most = [10, 2000, 2 * FIRST_BYTES][fastrand::usize(..3)];
        while !rest.is_empty() {
            frames.push(rest.split_to(rest.len().min(fastrand::usize(1..most))));
        }
        let share = share();
        let all = share.received.free_bytes();
        let mut request =
            RequestBody::new(body(frames), share.clone(), SharedReservation::default());
        let mut seen = Vec::new();
        while let Some(data) = next(&mut request).await {
            seen.extend_from_slice(&data);
            assert!(all - share.received.free_bytes() <= 7 * FIRST_BYTES);
        }
        assert!(seen == stream);
        drop(request);
        assert_eq!(share.received.free_bytes(), all);
    }
}

/// A body whose frames come through a channel.
struct Sent(mpsc::UnboundedReceiver<Bytes>);

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = self.0.poll_recv(context);
        frame.map(|data| Some(Ok(Frame::data(data?))))
    }
}

fn sent() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (send, receive) = mpsc::unbounded_channel();
    (send, Body::new(Sent(receive)))
}

#[tokio::test]
async fn a_length_that_is_only_declared_holds_nothing() {
    let share = share();
    let all = share.received.free_bytes();
    let mut whole = Bytes::from(message(2 * MIB));
    let (send, body) = sent();
    let mut request = RequestBody::new(body, share.clone(), SharedReservation::default());
    send.send(whole.split_to(FIRST_BYTES - 1)).unwrap();
    // Nothing is passed on either, as the service would allocate the whole.
    assert!(next(&mut request).now_or_never().is_none());
    assert_eq!(share.received.free_bytes(), all);
    let mut arrived = FIRST_BYTES - 1;
    while !whole.is_empty() {
        let part = whole.split_to(whole.len().min(FIRST_BYTES));
        arrived += part.len();
        send.send(part).unwrap();
        let passed_on = next(&mut request).now_or_never();
        assert!(passed_on.is_none() || arrived >= MIB);
        tokio::task::yield_now().await;
        let held = all - share.received.free_bytes();
        assert!(held >= arrived && held <= (4 * arrived).max(64 << 10));
    }
    drop((request, send));
}

#[tokio::test]
async fn messages_that_wait_for_each_other_arrive_one_by_one() {
    const MESSAGES: usize = 8;
    let limits = crate::config::Limits {
        max_received_bytes: 4 * MIB,
        max_received_bytes_per_connection: 4 * MIB,
        max_message_bytes: MIB + PREFIX_BYTES,
        ..Config::default().limits
    };
    let shares = Shares::new(&limits);
    // Memory for a half of each is all there is.
    let mut requests = Vec::new();
    for _ in 0..MESSAGES {
        let mut whole = Bytes::from(message(MIB));
        let (send, body) = sent();
        let mut request = RequestBody::new(body, shares.share(), SharedReservation::default());
        send.send(whole.split_to(MIB / 4)).unwrap();
        assert!(next(&mut request).now_or_never().is_none());
        requests.push((request, send, whole));
    }
    let all = requests.into_iter().map(async |(mut request, send, rest)| {
        let mut bytes = 0;
        send.send(rest).unwrap();
        drop(send);
        while let Some(data) = next(&mut request).await {
            bytes += data.len();
        }
        bytes
    });
    let all = futures_util::future::join_all(all);
    let all = timeout(Duration::from_secs(60), all).await;
    assert_eq!(all.unwrap(), [PREFIX_BYTES + MIB; MESSAGES]);
}

#[tokio::test]
async fn a_message_that_stalls_makes_room_while_another_waits() {
    let limits = crate::config::Limits {
        max_received_bytes: MIB,
        max_received_bytes_per_connection: MIB,
        max_message_bytes: MIB,
        stall_timeout: Duration::from_secs(20),
        ..Config::default().limits
    };
    let shares = Shares::new(&limits);
    let whole = Bytes::from(message(MIB));
    // The first takes the budget, the second the room beside it, and the third waits.
    let [mut first, mut second, mut third] = [3 * MIB / 4; 3].map(|part| {
        let (send, body) = sent();
        send.send(whole.slice(..part)).unwrap();
        let memory = SharedReservation::default();
        (RequestBody::new(body, shares.share(), memory), send)
    });
    assert!(next(&mut first.0).now_or_never().is_some());
    assert!(next(&mut second.0).now_or_never().is_some());
    assert!(next(&mut third.0).now_or_never().is_none());
    let since = Instant::now();
    let ended = poll_fn(|context| Pin::new(&mut first.0).poll_frame(context)).await;
    let status = ended.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    assert!(since.elapsed() < limits.stall_timeout);
    drop(first);
    assert!(next(&mut third.0).await.is_some());
}

#[tokio::test]
async fn a_message_without_memory_waits_and_its_call_releases_it() {
    let share = share();
    let all = share.received.free_bytes();
    let others = share.received.reserve(all - MIB).await;
    let spare = share.reserve_received(2 * MIB, usize::MAX).await;
    let mut whole = Bytes::from(message(2 * MIB));
    let begin = whole.split_to(MIB + 100);
    let memory = SharedReservation::default();
    let mut request = RequestBody::new(body([begin, whole]), share.clone(), memory.clone());
    assert!(next(&mut request).now_or_never().is_none());
    drop(others);
    let mut bytes = 0;
    while let Some(data) = next(&mut request).await {
        bytes += data.len();
    }
    assert_eq!(bytes, PREFIX_BYTES + 2 * MIB);
    drop(spare);
    // The call owns the message now.
    drop(request);
    let held = all - share.received.free_bytes();
    assert!((2 * MIB..2 * MIB + (2 << 10)).contains(&held), "{held}");
    memory.clear();
    assert_eq!(share.received.free_bytes(), all);
}

fn small() -> Reserve {
    Reserve::Made(None)
}

#[tokio::test]
async fn a_response_counts_until_its_last_piece_is_sent() {
    let share = share();
    let all = share.unsent.free_bytes();
    let sent = Bytes::from(vec![7; MIB]);
    let mut response = ResponseBody::new(body([sent.clone()]), share.clone(), small());
    let mut pieces = Vec::new();
    while let Some(piece) = next(&mut response).await {
        assert!(piece.len() <= PIECE_BYTES);
        pieces.push(piece);
    }
    drop(response);
    assert_eq!(share.unsent.free_bytes(), all - MIB);
    assert_eq!(pieces.concat(), sent);
    pieces.truncate(1);
    assert_eq!(share.unsent.free_bytes(), all - MIB);
    pieces.clear();
    assert_eq!(share.unsent.free_bytes(), all);
}

#[tokio::test]
async fn small_responses_need_no_memory_until_many_are_unread() {
    let share = share();
    let all = share.unsent.free_bytes();
    let others = share.unsent.reserve(all).await;
    let spare = share.reserve_unsent(usize::MAX).await;
    let message = Bytes::from(vec![7; SMALL_BYTES]);
    let mut unread = Vec::new();
    let waits = loop {
        let mut response = ResponseBody::new(body([message.clone()]), share.clone(), small());
        match next(&mut response).now_or_never() {
            Some(sent) => unread.push(sent.unwrap()),
            None => break response,
        }
    };
    assert_eq!(unread.len(), (256 << 10) / SMALL_BYTES);
    drop((others, spare));
    let mut waits = waits;
    let counted = next(&mut waits).await.unwrap();
    assert_eq!(share.unsent.free_bytes(), all - SMALL_BYTES);
    assert!(share.has_unread());
    drop(counted);
    assert!(!share.has_unread());
}

#[tokio::test]
async fn messages_of_a_stream_need_memory_before_they_are_made() {
    let share = share();
    let all = share.unsent.free_bytes();
    let others = share.unsent.reserve(all).await;
    let spare = share.reserve_unsent(usize::MAX).await;
    let message = Bytes::from(vec![7; SMALL_BYTES]);
    let messages = body([message.clone(), message]);
    let mut response = ResponseBody::new(messages, share.clone(), Reserve::Before);
    assert!(next(&mut response).now_or_never().is_none());
    // The room beside the budget is enough, and is given back.
    drop(spare);
    assert!(next(&mut response).now_or_never().unwrap().is_some());
    assert!(next(&mut response).now_or_never().unwrap().is_some());
    drop(others);
}
