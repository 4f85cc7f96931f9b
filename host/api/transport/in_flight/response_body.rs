//! The body of a response, which is counted from before it is built until the transport has sent or
//! dropped it. Small messages count only when a connection leaves many of them unread.

use super::super::share::{Share, Small, Unread};
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

/// Messages up to this size are copied into the connection's own buffer, and `Share::small` counts them.
pub const SMALL_BYTES: usize = 4 << 10;

/// When the memory of a response is reserved.
pub enum Reserve {
    /// It was reserved before the response was built; without a reservation the response is small.
    Made(Option<Arc<Reservation>>),
    /// Before each message is taken from the service, whatever its size.
    Before,
}

/// The messages that the node sends in a call.
pub struct ResponseBody {
    inner: Body,
    share: Arc<Share>,
    reserve: Reserve,
    reserving: Option<BoxFuture<'static, Reservation>>,
    /// A message that waits for memory.
    waiting: Option<Bytes>,
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

/// A small message, until the transport has sent it.
struct SmallPiece {
    bytes: Bytes,
    _small: Small,
}

impl AsRef<[u8]> for SmallPiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl ResponseBody {
    pub fn new(inner: Body, share: Arc<Share>, reserve: Reserve) -> Self {
        Self {
            inner,
            share,
            reserve,
            reserving: None,
            waiting: None,
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

    /// The first piece of a message that has its memory.
    fn counted(&mut self, data: Bytes, mut reservation: Arc<Reservation>) -> Option<Frame<Bytes>> {
        if let Some(reservation) = Arc::get_mut(&mut reservation) {
            reservation.shrink_to(data.len());
        }
        let unread = self.share.unread(data.len(), reservation);
        self.rest = Some((data, unread));
        self.piece()
    }

    fn poll_reserve(&mut self, context: &mut Context<'_>, bytes: usize) -> Poll<Arc<Reservation>> {
        if self.reserving.is_none() {
            if let Some(reservation) = self.share.unsent.try_reserve(bytes) {
                return Poll::Ready(Arc::new(reservation));
            }
            let share = self.share.clone();
            self.reserving = Some(Box::pin(async move { share.reserve_unsent(bytes).await }));
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
        if let Some(bytes) = self.waiting.as_ref().map(Bytes::len) {
            let reservation = ready!(self.poll_reserve(context, bytes));
            let data = self.waiting.take().unwrap_or_default();
            return Poll::Ready(self.counted(data, reservation).map(Ok));
        }
        // Pending drops this reservation: a stream without messages holds no memory.
        let before = match self.reserve {
            Reserve::Made(_) => None,
            Reserve::Before => {
                let max = self.share.max_message_bytes;
                Some(ready!(self.poll_reserve(context, max)))
            }
        };
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let data = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => data,
            Some(Ok(Err(frame))) => return Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        let reservation = match &mut self.reserve {
            Reserve::Made(reserved) => reserved.take(),
            Reserve::Before => before,
        };
        if data.len() <= SMALL_BYTES
            && let Some(small) = self.share.small(data.len())
        {
            let piece = SmallPiece {
                bytes: data,
                _small: small,
            };
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))));
        }
        if let Some(reservation) = reservation {
            return Poll::Ready(self.counted(data, reservation).map(Ok));
        }
        let reservation = match self.poll_reserve(context, data.len()) {
            Poll::Ready(reservation) => reservation,
            Poll::Pending => {
                self.waiting = Some(data);
                return Poll::Pending;
            }
        };
        Poll::Ready(self.counted(data, reservation).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.waiting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_none() && self.waiting.is_none() {
            self.inner.size_hint()
        } else {
            SizeHint::default()
        }
    }
}
