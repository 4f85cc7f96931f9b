//! Hands the calls of one connection to the services, with the peer's address and the connection's share
//! of the budgets. A call counts as open until its response is handed to the transport in full.

use super::{
    connection_limit::{Activity, OpenCall},
    share::Share,
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
    pub peer: TcpConnectInfo,
    pub share: Arc<Share>,
}

impl<S> Service<Request<Incoming>> for Calls<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Call<Oneshot<S, Request<Body>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        let open = self.activity.begin();
        let extensions = request.extensions_mut();
        // The layer that counts what is in flight takes it, once the call is authenticated.
        extensions.insert(open.clone());
        extensions.insert(self.peer.clone());
        extensions.insert(self.share.clone());
        Call {
            response: Box::pin(self.service.clone().oneshot(request)),
            open: Some(open),
        }
    }
}

/// A call whose response is awaited.
pub struct Call<F> {
    response: Pin<Box<F>>,
    open: Option<Arc<OpenCall>>,
}

impl<F> Future for Call<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.response.as_mut().poll(context))?;
        let open = self.open.take();
        Poll::Ready(Ok(response.map(|body| ResponseBody { body, _open: open })))
    }
}

/// The body of a response, which keeps its call open.
pub struct ResponseBody {
    body: Body,
    _open: Option<Arc<OpenCall>>,
}

impl hyper::body::Body for ResponseBody {
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
