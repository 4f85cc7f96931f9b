//! The calls of one connection, handed to the services with what is known of the connection. A call
//! counts as open until its answer is handed to the transport as a whole. Decides nothing about any.

use super::{
    connections::{Activity, OpenCall},
    share::Peer,
};
use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Frame, Incoming, SizeHint},
    service::Service,
};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::{Status, body::Body, transport::server::TcpConnectInfo};
use tower::util::{Oneshot, ServiceExt};

/// Hands each call to a clone of `service`.
pub struct Calls<S> {
    pub service: S,
    pub activity: Arc<Activity>,
    pub peer: Peer<TcpConnectInfo>,
}

impl<S> Service<Request<Incoming>> for Calls<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Call<Oneshot<S, Request<Body>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer.clone());
        Call {
            answered: Box::pin(self.service.clone().oneshot(request)),
            open: Some(self.activity.begin()),
        }
    }
}

/// A call that is being answered.
pub struct Call<F> {
    answered: Pin<Box<F>>,
    open: Option<OpenCall>,
}

impl<F> Future for Call<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.answered.as_mut().poll(context))?;
        let open = self.open.take();
        Poll::Ready(Ok(response.map(|body| Answer { body, _open: open })))
    }
}

/// The body of an answer.
pub struct Answer {
    body: Body,
    _open: Option<OpenCall>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
