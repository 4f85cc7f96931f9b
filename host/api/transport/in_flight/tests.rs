//! Messages arrive whole however they are cut into frames, and one at a time is counted. Responses leave in
//! pieces, and are counted until the last one is dropped.

use super::{super::share::Shares, request_body::PREFIX_BYTES, response_body::PIECE_BYTES, *};
use crate::Config;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Body as HttpBody, Frame};
use std::{collections::VecDeque, future::poll_fn, pin::Pin};
use tonic::Status;

const MIB: usize = 1 << 20;

/// A body of these frames.
struct Frames(VecDeque<Bytes>);

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

fn body(frames: impl IntoIterator<Item = Bytes>) -> Body {
    Body::new(Frames(frames.into_iter().collect()))
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
        let lengths = std::iter::repeat_with(|| fastrand::usize(..3000));
        let stream: Vec<u8> = lengths.take(20).flat_map(message).collect();
        let (mut rest, mut frames) = (Bytes::from(stream.clone()), Vec::new());
        while !rest.is_empty() {
            frames.push(rest.split_to(rest.len().min(fastrand::usize(1..2000))));
        }
        let share = share();
        let all = share.received.free_bytes();
        let mut request =
            RequestBody::new(body(frames), share.clone(), SharedReservation::default());
        let mut seen = Vec::new();
        while let Some(data) = next(&mut request).await {
            seen.extend_from_slice(&data);
            assert!(all - share.received.free_bytes() <= 3 << 10);
        }
        assert_eq!(seen, stream);
        drop(request);
        assert_eq!(share.received.free_bytes(), all);
    }
}

#[tokio::test]
async fn a_message_without_memory_waits_and_its_call_releases_it() {
    let share = share();
    let all = share.received.free_bytes();
    let others = share.received.reserve(all - MIB).await;
    let mut whole = Bytes::from(message(2 * MIB));
    let begin = whole.split_to(100);
    let memory = SharedReservation::default();
    let mut request = RequestBody::new(body([begin, whole]), share.clone(), memory.clone());
    assert!(next(&mut request).now_or_never().is_none());
    drop(others);
    let mut bytes = 0;
    while let Some(data) = next(&mut request).await {
        bytes += data.len();
    }
    assert_eq!(bytes, PREFIX_BYTES + 2 * MIB);
    // The call owns the message now.
    drop(request);
    assert_eq!(share.received.free_bytes(), all - 2 * MIB);
    memory.clear();
    assert_eq!(share.received.free_bytes(), all);
}

#[tokio::test]
async fn a_response_counts_until_its_last_piece_is_sent() {
    let share = share();
    let all = share.unsent.free_bytes();
    let sent = Bytes::from(vec![7; MIB]);
    let mut response = ResponseBody::new(body([sent.clone()]), share.clone(), None);
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
