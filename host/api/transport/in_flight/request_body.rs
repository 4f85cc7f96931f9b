//! The body of a request, whose messages are counted. A message counts from its length prefix on, before
//! the rest of it is read. If the budget has no room, reading waits, and HTTP/2 holds the client back.

use super::super::{super::status, share::Share};
use crate::budget::{Reservation, SharedReservation};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::{Sleep, sleep};
use tonic::{Status, body::Body};

/// The size of the prefix of a message: whether it is compressed, and its length.
pub const PREFIX_BYTES: usize = 5;

/// The messages that a client sends in a call.
pub struct RequestBody {
    inner: Body,
    share: Arc<Share>,
    received: SharedReservation,
    /// The part of the next message's prefix that has arrived.
    prefix: Vec<u8>,
    /// How many bytes of the current message are missing, and when they have to be there.
    missing: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The end of a frame, where a message of this size begins that has to be counted before it is passed
    /// on.
    held: Option<(Bytes, usize)>,
    reserving: Option<BoxFuture<'static, Reservation>>,
}

impl RequestBody {
    pub fn new(inner: Body, share: Arc<Share>, received: SharedReservation) -> Self {
        Self {
            inner,
            share,
            received,
            prefix: Vec::new(),
            missing: 0,
            deadline: None,
            held: None,
            reserving: None,
        }
    }

    /// Scans a frame. If a message begins in it and does not end in it, returns where it begins and how long
    /// it is. A message that ends in the frame is in memory already, and is not counted.
    fn scan(&mut self, data: &[u8]) -> Option<(usize, usize)> {
        let ours = self.missing.min(data.len());
        self.missing -= ours;
        let mut at = ours;
        while at < data.len() {
            let begin = at;
            let prefix = (PREFIX_BYTES - self.prefix.len()).min(data.len() - at);
            self.prefix.extend_from_slice(&data[at..at + prefix]);
            at += prefix;
            let [_, a, b, c, d] = self.prefix[..] else {
                break;
            };
            self.prefix.clear();
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let here = length.min(data.len() - at);
            at += here;
            self.missing = length - here;
            if self.missing > 0 {
                return Some((begin, length));
            }
        }
        None
    }

    /// Reserves memory for the message of this size that begins in `data`.
    fn hold(&mut self, data: Bytes, length: usize) {
        self.received.clear();
        let budget = self.share.received.clone();
        self.reserving = Some(Box::pin(async move { budget.reserve(length).await }));
        self.held = Some((data, length));
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(reserving) = &mut self.reserving {
                let reservation = ready!(reserving.as_mut().poll(context));
                self.reserving = None;
                self.received.put(reservation);
                let Some((data, length)) = self.held.take() else {
                    continue;
                };
                self.deadline = Some(Box::pin(sleep(self.share.message_timeout(length))));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            // The service asks for more, so it has taken the message before.
            if let Some((data, length)) = self.held.take() {
                self.hold(data, length);
                continue;
            }
            let was_complete = self.missing == 0;
            let frame = match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Pending => {
                    let deadline = self.deadline.as_mut();
                    if deadline.is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
                        let status = status::stalled();
                        return Poll::Ready(Some(Err(status)));
                    }
                    return Poll::Pending;
                }
                Poll::Ready(frame) => frame,
            };
            let mut data = match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => data,
                Some(Ok(Err(frame))) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.missing > 0 || !self.prefix.is_empty() => {
                    return Poll::Ready(Some(Err(status::truncated())));
                }
                None => return Poll::Ready(None),
            };
            let begins = self.scan(&data);
            let max = self.share.max_message_bytes;
            if let Some((_, length)) = begins.filter(|(_, length)| *length > max) {
                let status = status::message_too_large(length, max);
                return Poll::Ready(Some(Err(status)));
            }
            if self.missing == 0 {
                self.deadline = None;
            }
            match begins {
                None => {
                    if was_complete {
                        self.received.clear();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some((0, length)) => self.hold(data, length),
                Some((at, length)) => {
                    let rest = data.split_off(at);
                    self.held = Some((rest, length));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.held {
            None => self.inner.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}
