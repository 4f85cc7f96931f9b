//! The body of a response, which is counted from before it is built until the transport has sent or
//! dropped it.

use super::super::share::{Share, Unread};
use crate::budget::Reservation;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::{Status, body::Body};

/// The size of the pieces in which a response is handed to the transport. It counts as read piece by
/// piece.
pub const PIECE_BYTES: usize = 64 << 10;

/// Responses up to this size are copied into the connection's own buffer and not counted beyond that.
const SMALL_BYTES: usize = 4 << 10;

/// The messages that the node sends in a call.
pub struct ResponseBody {
    inner: Body,
    share: Arc<Share>,
    /// The reservation made before the response was built.
    reserved: Option<Arc<Reservation>>,
    reserving: Option<BoxFuture<'static, Reservation>>,
    /// The part of a frame that has not been handed to the transport.
    rest: Option<(Bytes, Arc<Unread>)>,
}

/// A part of a response, until the transport has sent it.
struct Piece {
    bytes: Bytes,
    response: Arc<Unread>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.response.sent(self.bytes.len());
    }
}

impl ResponseBody {
    pub fn new(inner: Body, share: Arc<Share>, reserved: Option<Arc<Reservation>>) -> Self {
        Self {
            inner,
            share,
            reserved,
            reserving: None,
            rest: None,
        }
    }

    /// The next piece of the current frame.
    fn piece(&mut self) -> Option<Frame<Bytes>> {
        let (mut rest, response) = self.rest.take()?;
        let bytes = rest.split_to(rest.len().min(PIECE_BYTES));
        if !rest.is_empty() {
            self.rest = Some((rest, response.clone()));
        }
        Some(Frame::data(Bytes::from_owner(Piece { bytes, response })))
    }

    /// Reserves memory for the next frame, whatever its size.
    fn poll_reserve(&mut self, context: &mut Context<'_>) -> Poll<Arc<Reservation>> {
        if let Some(reserved) = self.reserved.take() {
            return Poll::Ready(reserved);
        }
        let (budget, max) = (&self.share.unsent, self.share.max_message_bytes);
        if self.reserving.is_none() {
            if let Some(reservation) = budget.try_reserve(max) {
                return Poll::Ready(Arc::new(reservation));
            }
            let budget = budget.clone();
            self.reserving = Some(Box::pin(async move { budget.reserve(max).await }));
        }
        let Some(reserving) = &mut self.reserving else {
            return Poll::Pending;
        };
        let reservation = ready!(reserving.as_mut().poll(context));
        self.reserving = None;
        Poll::Ready(Arc::new(reservation))
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.piece() {
            return Poll::Ready(Some(Ok(piece)));
        }
        let mut reservation = ready!(self.poll_reserve(context));
        // Pending drops the reservation: a stream without messages holds no memory.
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
        if let Some(reservation) = Arc::get_mut(&mut reservation) {
            reservation.shrink_to(data.len());
        }
        let unread = self.share.unread(data.len(), reservation);
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
