//! Counts what is in flight, as one layer over all services. A message that comes in is counted from
//! its length prefix on, before the rest of it is read; an answer from before it is built, until the
//! transport has sent it or dropped it. Where the budget is used up, reading and building wait: HTTP/2
//! then holds the client back. A message that is longer than any may be is refused by its prefix. How much there is to use is in `share`.

use super::share::{Peer, Share, Unread};
use crate::budget::{Reservation, Slot};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::{Sleep, sleep};
use tonic::{Response, Status, body::Body, codegen::http, transport::server::TcpConnectInfo};
use tower::{Layer, Service};

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// What an answer is handed to the transport in. It counts as read piece by piece.
const PIECE_BYTES: usize = 64 << 10;

/// Answers up to this size are copied into the connection's own buffer and not counted beyond that.
const SMALL_BYTES: usize = 4 << 10;

/// What the call's own message takes of the budget for what is received. A call that needs the
/// message for long keeps this meanwhile.
pub fn received<T>(request: &mut tonic::Request<T>) -> Slot {
    request.extensions_mut().remove().unwrap_or_default()
}

/// The share of the connection that a request came over; absent only where no server put it there.
pub fn share_of<T>(request: &tonic::Request<T>) -> Option<Arc<Share>> {
    request.extensions().get::<Arc<Share>>().cloned()
}

/// An answer for which bytes have been reserved before it was built.
pub fn answer<T>(message: T, reserved: Option<Arc<Reservation>>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(reserved) = reserved {
        response.extensions_mut().insert(reserved);
    }
    response
}

/// An answer that was built in `room`, which it may not need all of.
pub fn built<T: prost::Message>(message: T, mut room: Option<Reservation>) -> Response<T> {
    if let Some(room) = &mut room {
        room.shrink_to(message.encoded_len());
    }
    answer(message, room.map(Arc::new))
}

/// Reserves room for the largest answer of a call that is about to build one.
pub async fn room<T>(request: &tonic::Request<T>) -> Option<Reservation> {
    let share = share_of(request)?;
    Some(share.unsent.reserve(share.max_message_bytes).await)
}

/// The layer.
#[derive(Clone)]
pub struct CountInFlight;

#[derive(Clone)]
pub struct InFlight<S>(S);

impl<S> Layer<S> for CountInFlight {
    type Service = InFlight<S>;

    fn layer(&self, inner: S) -> InFlight<S> {
        InFlight(inner)
    }
}

impl<S> Service<http::Request<Body>> for InFlight<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer<TcpConnectInfo>>();
        let Some(share) = peer.map(|peer| peer.share.clone()) else {
            return Box::pin(self.0.call(request));
        };
        let received = Slot::default();
        request.extensions_mut().insert(received.clone());
        request.extensions_mut().insert(share.clone());
        let its = share.clone();
        let request = request.map(|body| Body::new(Incoming::new(body, its, received)));
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let reserved = response.extensions_mut().remove();
            Ok(response.map(|body| Body::new(Answer::new(body, share, reserved))))
        })
    }
}

type Reserving = BoxFuture<'static, Reservation>;

/// What a client sends in a call.
struct Incoming {
    inner: Body,
    share: Arc<Share>,
    received: Slot,
    /// Of the next message's prefix, what has come.
    prefix: Vec<u8>,
    /// How much of the message that has begun is missing, and until when it has to come.
    missing: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The end of a frame, where a message begins that has to be counted before it is handed on.
    held: Option<(Bytes, usize)>,
    reserving: Option<Reserving>,
}

impl Incoming {
    fn new(inner: Body, share: Arc<Share>, received: Slot) -> Self {
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

    /// Looks through a frame. Where a message begins in it and does not end in it: at which place, and
    /// how long that message is. What ends in it is here already, and needs no room.
    fn begins(&mut self, data: &[u8]) -> Option<(usize, usize)> {
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

    /// Makes room for the message of this size that `data` begins.
    fn hold(&mut self, data: Bytes, length: usize) {
        self.received.clear();
        let budget = self.share.received.clone();
        self.reserving = Some(Box::pin(async move { budget.reserve(length).await }));
        self.held = Some((data, length));
    }
}

impl HttpBody for Incoming {
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
            // The message before it has been taken: this is asked for what follows.
            if let Some((data, length)) = self.held.take() {
                self.hold(data, length);
                continue;
            }
            let was_complete = self.missing == 0;
            let frame = match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Pending => {
                    let deadline = self.deadline.as_mut();
                    if deadline.is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
                        let status = super::status::stalled();
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
                    return Poll::Ready(Some(Err(super::status::cut_short())));
                }
                None => return Poll::Ready(None),
            };
            let begins = self.begins(&data);
            let max = self.share.max_message_bytes;
            if let Some((_, length)) = begins.filter(|(_, length)| *length > max) {
                let status = super::status::message_too_large(length, max);
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

/// What the node answers to a call.
struct Answer {
    inner: Body,
    share: Arc<Share>,
    /// What was reserved before the answer was built.
    reserved: Option<Arc<Reservation>>,
    reserving: Option<Reserving>,
    /// Of a frame, what has not been handed to the transport.
    rest: Option<(Bytes, Arc<Unread>)>,
}

/// Part of an answer, until the transport has sent it.
struct Piece {
    bytes: Bytes,
    answer: Arc<Unread>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.answer.sent(self.bytes.len());
    }
}

impl Answer {
    fn new(inner: Body, share: Arc<Share>, reserved: Option<Arc<Reservation>>) -> Self {
        Self {
            inner,
            share,
            reserved,
            reserving: None,
            rest: None,
        }
    }

    /// The next piece of a frame that has been begun.
    fn piece(&mut self) -> Option<Frame<Bytes>> {
        let (mut rest, answer) = self.rest.take()?;
        let bytes = rest.split_to(rest.len().min(PIECE_BYTES));
        if !rest.is_empty() {
            self.rest = Some((rest, answer.clone()));
        }
        Some(Frame::data(Bytes::from_owner(Piece { bytes, answer })))
    }

    /// Room for the frame that comes next, whatever its size.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Arc<Reservation>> {
        if let Some(reserved) = self.reserved.take() {
            return Poll::Ready(reserved);
        }
        let (budget, most) = (&self.share.unsent, self.share.max_message_bytes);
        if self.reserving.is_none() {
            if let Some(room) = budget.try_reserve(most) {
                return Poll::Ready(Arc::new(room));
            }
            let budget = budget.clone();
            self.reserving = Some(Box::pin(async move { budget.reserve(most).await }));
        }
        let Some(reserving) = &mut self.reserving else {
            return Poll::Pending;
        };
        let room = ready!(reserving.as_mut().poll(context));
        self.reserving = None;
        Poll::Ready(Arc::new(room))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.piece() {
            return Poll::Ready(Some(Ok(piece)));
        }
        let mut room = ready!(self.poll_room(context));
        // A stream without news gives the room back.
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let data = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => data,
            Some(Ok(Err(frame))) => return Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        if data.len() <= SMALL_BYTES {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(room) = Arc::get_mut(&mut room) {
            room.shrink_to(data.len());
        }
        let unread = self.share.unread(data.len(), room);
        self.rest = Some((data, unread));
        Poll::Ready(self.piece().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            None => self.inner.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests;
