//! Deadlines of calls: that of the client (`grpc-timeout`), and the node's own for every call that is not a
//! stream. One layer before all services, so that it ends any wait.

use super::super::status;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, SizeHint},
};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};
use tower::{Layer, Service, util::ServiceExt};

/// How long before its deadline a call is answered: a tenth of the time left, but no more than this.
const MARGIN: Duration = Duration::from_millis(100);

/// The layer that ends calls at their deadlines.
#[derive(Clone, Copy)]
pub struct Deadlines {
    /// How long any call may take until its response begins.
    pub max: Duration,
}

impl<S> Layer<S> for Deadlines {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed {
            inner,
            max: self.max,
        }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub struct Timed<S> {
    inner: S,
    max: Duration,
}

impl<S, B> Service<Request<B>> for Timed<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Waiting until the inner service is ready is part of the call's time.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (now, max) = (Instant::now(), self.max);
        let given = grpc_timeout(request.headers());
        let given = given.map(|timeout| timeout - MARGIN.min(timeout / 10));
        let mut sleep = Box::pin(sleep_until(now + given.unwrap_or(max).min(max)));
        let response = self.inner.clone().oneshot(request);
        Box::pin(async move {
            tokio::select! {
                biased;
                response = response => match given {
                    None => response,
                    Some(given) => {
                        sleep.as_mut().reset(now + given);
                        let sleep = Some(sleep);
                        Ok(response?.map(|body| Body::new(TimedBody { body, sleep })))
                    }
                },
                () = &mut sleep => Ok(match given {
                    Some(given) if given <= max => status::deadline_exceeded(),
                    _ => status::took_too_long(max),
                }
                .into_http()),
            }
        })
    }
}

/// The body of a response to a call with a deadline, which ends a stream as well.
struct TimedBody {
    body: Body,
    /// `None` once the status has been sent.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for TimedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(sleep) = &mut self.sleep else {
            return Poll::Ready(None);
        };
        let is_over = sleep.as_mut().poll(context).is_ready();
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && is_over {
            self.sleep = None;
            self.body = Body::empty();
            let mut trailers = HeaderMap::new();
            let added = status::deadline_exceeded().add_header(&mut trailers);
            return Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.sleep.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Parses the header: up to eight digits and a unit. An invalid one is ignored.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            grpc_timeout(&headers)
        };
        assert_eq!(
            of("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(of("2M"), Some(Duration::from_secs(120)));
        assert_eq!(of("1S"), Some(Duration::from_secs(1)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(of("0n"), Some(Duration::ZERO));
        for nonsense in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "1.5S",
            "999999999S",
            "1 S",
        ] {
            assert_eq!(of(nonsense), None, "{nonsense}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }
}
