//! The body of a request, whose messages are counted as they arrive. Beyond a first part, memory is reserved
//! for what has arrived and as much again, and the message is held back until that is all of it: the service
//! allocates the whole once it knows the length. A length that is only declared so holds nothing. If the
//! budget has no room, reading waits, and HTTP/2 holds the client back.

use super::super::{super::status, share::Share};
use crate::budget::{Reservation, SharedReservation};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};

/// The size of the prefix of a message: whether it is compressed, and its length.
pub const PREFIX_BYTES: usize = 5;

/// How much of a message has to arrive before anything is reserved for it.
pub const FIRST_BYTES: usize = 8 << 10;

/// The least that is reserved at once, and the size of the blocks that hold what has arrived.
const STEP_BYTES: usize = 64 << 10;

/// While others wait, a message has to make progress as often as this within its time, each time by a
/// part of it: half of what a message needs that arrives evenly.
const CHECKS: u32 = 16;
const PROGRESS_PART: usize = 32;

/// The least time between two checks, so that a short pause is none.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The messages that a client sends in a call.
pub struct RequestBody {
    inner: Body,
    share: Arc<Share>,
    received: SharedReservation,
    /// What has arrived and was not looked at.
    rest: Bytes,
    /// The part of the next message's prefix that has arrived.
    prefix: Vec<u8>,
    /// The message that arrives, if its end did not come with its beginning.
    message: Option<Incoming>,
    /// The part of it that is held back, copied so that small frames keep no large buffers.
    held: Vec<BytesMut>,
    /// What was held back and is passed on now.
    passing: std::vec::IntoIter<BytesMut>,
    reserving: Option<(Instant, BoxFuture<'static, (Reservation, usize)>)>,
}

/// A message of which a part has arrived.
struct Incoming {
    bytes: usize,
    missing: usize,
    /// For how many of the bytes memory is reserved.
    reserved: usize,
    /// When it has to be there, and when to check its progress.
    deadline: Instant,
    check: Pin<Box<Sleep>>,
    interval: Duration,
    /// How much had arrived at the last check.
    checked: usize,
}

impl Incoming {
    fn new(bytes: usize, time: Duration) -> Self {
        let now = Instant::now();
        let interval = (time / CHECKS).max(MIN_CHECK_INTERVAL).min(time);
        Self {
            bytes,
            missing: bytes,
            reserved: 0,
            deadline: now + time,
            check: Box::pin(sleep_until(now + interval)),
            interval,
            checked: 0,
        }
    }

    fn arrived(&self) -> usize {
        self.bytes - self.missing
    }

    /// Whether it can be passed on: once there is memory for all of it, or if it needs none.
    fn is_ready(&self) -> bool {
        let is_whole = self.missing == 0;
        self.reserved >= self.bytes || (is_whole && self.bytes <= FIRST_BYTES)
    }

    /// Goes on after a time in which it was not read.
    fn resume(&mut self, since: Instant) {
        let now = Instant::now();
        self.deadline += now - since;
        self.next_check(now);
    }

    fn next_check(&mut self, now: Instant) {
        self.checked = self.arrived();
        let next = (now + self.interval).min(self.deadline);
        self.check.as_mut().reset(next);
    }

    /// Whether it arrives too slowly.
    fn poll_stalled(&mut self, context: &mut Context<'_>, others_wait: impl Fn() -> bool) -> bool {
        while self.check.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let progress = self.arrived() - self.checked;
            if now >= self.deadline || (progress < self.bytes / PROGRESS_PART && others_wait()) {
                return true;
            }
            self.next_check(now);
        }
        false
    }
}

impl RequestBody {
    pub fn new(inner: Body, share: Arc<Share>, received: SharedReservation) -> Self {
        Self {
            inner,
            share,
            received,
            rest: Bytes::new(),
            prefix: Vec::new(),
            message: None,
            held: Vec::new(),
            passing: Vec::new().into_iter(),
            reserving: None,
        }
    }

    /// Whether all that has arrived was passed on.
    fn is_drained(&self) -> bool {
        self.rest.is_empty() && self.held.is_empty() && self.passing.len() == 0
    }

    /// Scans what has arrived for the first message that does not end in it. Returns where it begins, and
    /// its length.
    fn scan(&mut self) -> Option<(usize, usize)> {
        let data = &self.rest;
        let mut at = 0;
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
            if length > data.len() - at {
                let time = self.share.message_timeout(length);
                self.message = Some(Incoming::new(at - begin + length, time));
                return Some((begin, length));
            }
            at += length;
        }
        None
    }

    /// The messages that end in what has arrived. They are in memory already, and are not counted. `None` if
    /// there is only the beginning of a message, which `arrived` continues.
    fn whole(&mut self) -> Option<Result<Bytes, Status>> {
        // The service asks for more, so it has taken the message before.
        self.received.clear();
        match self.scan() {
            None => Some(Ok(std::mem::take(&mut self.rest))),
            Some((begin, length)) => {
                let max = self.share.max_message_bytes;
                if length > max {
                    return Some(Err(status::message_too_large(length, max)));
                }
                (begin > 0).then(|| Ok(self.rest.split_to(begin)))
            }
        }
    }

    /// Adds what has arrived of the current message, and returns it if it can be passed on. Otherwise it is
    /// held, or waits for memory.
    fn arrived(&mut self) -> Option<Bytes> {
        let message = self.message.as_mut()?;
        let data = self.rest.split_to(message.missing.min(self.rest.len()));
        message.missing -= data.len();
        let arrived = message.arrived();
        let counts = message.bytes > FIRST_BYTES && arrived >= FIRST_BYTES;
        if counts && arrived > message.reserved {
            let target = (2 * arrived).max(STEP_BYTES).min(message.bytes);
            let bytes = target - message.reserved;
            if let Some(reservation) = self.share.received.try_reserve(bytes) {
                message.reserved = target;
                self.received.add(reservation);
            } else {
                let rest = message.bytes - message.reserved;
                let share = self.share.clone();
                let reserving = async move { share.reserve_received(bytes, rest).await };
                self.reserving = Some((Instant::now(), Box::pin(reserving)));
            }
        }
        if self.held.is_empty() && message.is_ready() {
            self.message.take_if(|message| message.missing == 0);
            return Some(data);
        }
        self.hold(&data);
        self.pass_on();
        None
    }

    fn hold(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let mut block = match self.held.pop_if(|block| block.len() < block.capacity()) {
                Some(block) => block,
                None if self.held.is_empty() => BytesMut::with_capacity(FIRST_BYTES),
                None => BytesMut::with_capacity(STEP_BYTES),
            };
            let (now, later) = data.split_at(data.len().min(block.capacity() - block.len()));
            block.extend_from_slice(now);
            self.held.push(block);
            data = later;
        }
    }

    /// Passes on what is held of the current message, if there is memory for all of it.
    fn pass_on(&mut self) {
        if self.message.as_ref().is_some_and(Incoming::is_ready) {
            self.passing = std::mem::take(&mut self.held).into_iter();
            self.message.take_if(|message| message.missing == 0);
        }
    }

    /// Waits for the memory of what has arrived, if it has to.
    fn poll_reserved(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some((since, reserving)) = &mut self.reserving else {
            return Poll::Ready(());
        };
        let (reservation, bytes) = ready!(reserving.as_mut().poll(context));
        let since = *since;
        self.reserving = None;
        self.received.add(reservation);
        if let Some(message) = &mut self.message {
            message.reserved += bytes;
            message.resume(since);
        }
        self.pass_on();
        Poll::Ready(())
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
            ready!(self.poll_reserved(context));
            if let Some(block) = self.passing.next() {
                return Poll::Ready(Some(Ok(Frame::data(block.freeze()))));
            }
            if !self.rest.is_empty() {
                if self.message.is_none()
                    && let Some(whole) = self.whole()
                {
                    return Poll::Ready(Some(whole.map(Frame::data)));
                }
                if let Some(data) = self.arrived() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                continue;
            }
            let frame = match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Pending => {
                    let this = &mut *self;
                    let others_wait = || this.share.others_wait_to_send();
                    if let Some(message) = &mut this.message
                        && message.poll_stalled(context, others_wait)
                    {
                        return Poll::Ready(Some(Err(status::stalled())));
                    }
                    return Poll::Pending;
                }
                Poll::Ready(frame) => frame,
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(frame))) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.message.is_some() || !self.prefix.is_empty() => {
                    return Poll::Ready(Some(Err(status::truncated())));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_drained() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_drained() {
            self.inner.size_hint()
        } else {
            SizeHint::default()
        }
    }
}
