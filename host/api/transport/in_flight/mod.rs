//! Counts the bytes in flight, as one layer over all services: requests and responses, in the budgets of
//! `share`. A message that is larger than the limit is refused by its length prefix. Calls that need no
//! token have no part in the budgets, and their services accept small messages only.

mod request_body;
mod response_body;

use super::{connection_limit::OpenCall, share::Share};
use crate::budget::{Reservation, SharedReservation};
use futures_util::future::BoxFuture;
use request_body::RequestBody;
use response_body::{Reserve, ResponseBody};
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{Response, body::Body, codegen::http};
use tower::{Layer, Service};

/// The memory of the call's own message in the budget for requests. A call that needs the message after
/// it has returned keeps this as long.
pub fn request_memory<T>(request: &mut tonic::Request<T>) -> SharedReservation {
    request.extensions_mut().remove().unwrap_or_default()
}

/// The share of the connection that a request arrived on; `None` only without a server.
pub fn share_of<T>(request: &tonic::Request<T>) -> Option<Arc<Share>> {
    request.extensions().get::<Arc<Share>>().cloned()
}

/// Reserves memory for the largest response, for a call that is about to build one.
pub async fn reserve_response<T>(request: &tonic::Request<T>) -> Option<Reservation> {
    let share = share_of(request)?;
    Some(share.reserve_unsent(share.max_message_bytes).await)
}

/// Marks responses whose messages are reserved before they are made.
#[derive(Debug, Clone, Copy)]
struct ReserveFirst;

/// A response of many messages, which may be large. Each is made once there is room for it.
pub fn stream_response<T>(messages: T) -> Response<T> {
    let mut response = Response::new(messages);
    response.extensions_mut().insert(ReserveFirst);
    response
}

/// A response within `reserved`, of which it keeps what it needs.
pub fn fit_response<T: prost::Message>(
    message: T,
    mut reserved: Option<Reservation>,
) -> Response<T> {
    if let Some(reserved) = &mut reserved {
        reserved.shrink_to(message.encoded_len());
    }
    response(message, reserved.map(Arc::new))
}

/// A response that keeps `reserved` until it is sent.
pub fn response<T>(message: T, reserved: Option<Arc<Reservation>>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(reserved) = reserved {
        response.extensions_mut().insert(reserved);
    }
    response
}

/// The layer.
#[derive(Clone)]
pub struct CountInFlight {
    /// The methods that need no token.
    pub open: &'static [&'static str],
}

/// A service behind the layer.
#[derive(Clone)]
pub struct InFlight<S> {
    inner: S,
    open: &'static [&'static str],
}

impl<S> Layer<S> for CountInFlight {
    type Service = InFlight<S>;

    fn layer(&self, inner: S) -> InFlight<S> {
        let open = self.open;
        InFlight { inner, open }
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
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let is_open = self.open.contains(&request.uri().path());
        let extensions = request.extensions_mut();
        let call = extensions.remove::<Arc<OpenCall>>();
        if is_open {
            extensions.remove::<Arc<Share>>();
        } else if let Some(call) = call {
            call.admit();
        }
        let Some(share) = request.extensions().get::<Arc<Share>>().cloned() else {
            return Box::pin(self.inner.call(request));
        };
        let memory = SharedReservation::default();
        request.extensions_mut().insert(memory.clone());
        let received = share.clone();
        let request = request.map(|body| Body::new(RequestBody::new(body, received, memory)));
        let response = self.inner.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            let extensions = response.extensions_mut();
            let reserve = match extensions.remove::<ReserveFirst>() {
                Some(ReserveFirst) => Reserve::Before,
                None => Reserve::Made(extensions.remove()),
            };
            Ok(response.map(|body| Body::new(ResponseBody::new(body, share, reserve))))
        })
    }
}

#[cfg(test)]
mod tests;
