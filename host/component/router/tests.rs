//! Two nodes on one broker, as on two machines: which component is reached, and how answers come back.

use super::*;
use crate::{
    broker::{LocalBroker, Received},
    component::node_inbox::NodeInbox,
    discovery::{Error, NodeRecord, ServiceInfo},
    health::Health,
    lifecycle::Component,
    plugin::{Messenger, OutgoingMessage},
};
use async_trait::async_trait;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

/// A discovery in which two nodes are always registered.
struct Both;

#[async_trait]
impl ServiceDiscovery for Both {
    async fn register_service(&self, _: ServiceInfo) -> Result<Duration, Error> {
        Err(Error::Reserved)
    }
    async fn discover_service(&self, _: &Name, _: usize) -> Result<Vec<ServiceInfo>, Error> {
        Ok(Vec::new())
    }
    async fn register_node(&self, _: NodeRecord) -> Result<(), Error> {
        Ok(())
    }
    async fn deregister_node(&self) -> Result<(), Error> {
        Ok(())
    }
    fn nodes(&self) -> Arc<[NodeRecord]> {
        let node = |id: &str, components: &[&str]| NodeRecord {
            components: components.iter().map(|id| name(id)).collect(),
            ..NodeRecord::new(name(id), "")
        };
        Arc::new([
            node("a", &["everywhere"]),
            node("b", &["everywhere", "only-b"]),
        ])
    }
    async fn drain(&self, _: &Name, _: bool) -> Result<(), Error> {
        Ok(())
    }
    fn drained(&self) -> Arc<BTreeSet<Name>> {
        Arc::default()
    }
    fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }
    fn cluster_id(&self) -> &str {
        "test"
    }
}

fn name(name: &str) -> Name {
    Name::parse("name", name).unwrap()
}

struct Node {
    router: Arc<Router>,
    node_inbox: NodeInbox,
}

async fn nodes() -> [Node; 2] {
    let broker = Arc::new(LocalBroker::default());
    let discovery = Arc::new(Both);
    let mut nodes = Vec::new();
    for id in ["a", "b"] {
        let router = Router::new(name(id), broker.clone(), discovery.clone(), 1000);
        let router = Arc::new(router);
        let node_inbox = NodeInbox::new(router.clone(), discovery.clone(), Health::default());
        node_inbox.start().await.unwrap();
        nodes.push(Node { router, node_inbox });
    }
    nodes.try_into().ok().unwrap()
}

/// A component that answers with its node's name and counts its messages.
fn live(node: &Node, id: &str, count: &Arc<AtomicUsize>) -> tokio::task::JoinHandle<()> {
    let (inbox, mut mailbox) = Subscription::new(8, Overflow::Refuse);
    let registration = node.router.register(&name(id), inbox).unwrap();
    let (router, id, count) = (node.router.clone(), name(id), count.clone());
    tokio::spawn(async move {
        let _registration = registration;
        while let Some(Received::Message(message)) = mailbox.next().await {
            count.fetch_add(1, Ordering::SeqCst);
            let answer = router.node().to_string().into();
            router.answer(&id, &message, Ok(Some(answer))).await;
        }
    })
}

fn message(from: &str, to: &str) -> Message {
    Message {
        id: "1".into(),
        from: from.into(),
        to: name(to),
        message_type: String::new(),
        payload: Bytes::new(),
        in_reply_to: String::new(),
        error: String::new(),
        reply_to: None,
    }
}

async fn request(node: &Node, message: Message) -> Message {
    let pending = node.router.request(message).await.unwrap();
    pending.wait(Duration::from_secs(10)).await.unwrap()
}

async fn ask(node: &Node, to: &str) -> String {
    let answer = request(node, message("", to)).await;
    if answer.error.is_empty() {
        String::from_utf8(answer.payload.to_vec()).unwrap()
    } else {
        answer.error
    }
}

#[tokio::test]
async fn a_component_is_reached_on_this_node_first() {
    let [a, b] = nodes().await;
    let counts = [0; 3].map(|_| Arc::new(AtomicUsize::new(0)));
    let _everywhere_a = live(&a, "everywhere", &counts[0]);
    let everywhere_b = live(&b, "everywhere", &counts[1]);
    let _only_b = live(&b, "only-b", &counts[2]);
    assert_eq!(ask(&a, "everywhere").await, "a");
    assert_eq!(ask(&b, "everywhere").await, "b");
    assert_eq!(ask(&a, "only-b").await, "b");
    let seen = counts.each_ref().map(|count| count.load(Ordering::SeqCst));
    assert_eq!(seen, [1, 1, 1], "exactly one instance each");
    // A request is answered even if it claims to be an answer, here and from elsewhere.
    for node in [&a, &b] {
        let odd = Message {
            in_reply_to: "x".into(),
            ..message("", "only-b")
        };
        assert_eq!(&*request(node, odd).await.payload, b"b");
    }
    // The component has just gone from b, and discovery does not know yet.
    everywhere_b.abort();
    let _ = everywhere_b.await;
    assert_eq!(ask(&b, "everywhere").await, "a");
    let gone = Message {
        to: name("only-b"),
        ..message("", "only-b")
    };
    assert!(matches!(a.router.send(gone).await, Ok(1)));
}

#[tokio::test]
async fn a_node_answers_requests_to_itself_and_to_components_it_no_longer_has() {
    let [a, _b] = nodes().await;
    let record: serde_json::Value = serde_json::from_str(&ask(&a, "b").await).unwrap();
    assert_eq!(
        record["components"],
        serde_json::json!(["everywhere", "only-b"])
    );
    let missing = ask(&a, "only-b").await;
    assert_eq!(missing, "only-b is no longer on b");
}

#[tokio::test]
async fn answers_go_to_the_sender_without_a_request_and_are_not_answered() {
    let [a, b] = nodes().await;
    let count = Arc::new(AtomicUsize::new(0));
    let _only_b = live(&b, "only-b", &count);
    let topic = [name("ann")];
    let mut ann = a
        .router
        .listen(&topic, 8, &Budget::new(1 << 20))
        .await
        .unwrap()
        .unwrap();
    a.router.send(message("ann", "only-b")).await.unwrap();
    let Some(Received::Message(answer)) = ann.next().await else {
        panic!("an answer");
    };
    assert_eq!(
        (answer.from.as_str(), answer.in_reply_to.as_str()),
        ("only-b", "1")
    );
    assert_eq!(&*answer.payload, b"b");
    // Two components do not answer each other for ever.
    let other = Arc::new(AtomicUsize::new(0));
    let _other = live(&a, "everywhere", &other);
    a.router
        .send(message("everywhere", "only-b"))
        .await
        .unwrap();
    while other.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&b, "only-b").await, "b");
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert_eq!(other.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn answers_to_a_published_message_go_to_the_component_that_sent_it() {
    let [a, b] = nodes().await;
    let [sender, namesake, receiver] = [0; 3].map(|_| Arc::new(AtomicUsize::new(0)));
    let _sender = live(&a, "everywhere", &sender);
    let _namesake = live(&b, "everywhere", &namesake);
    let _receiver = live(&b, "only-b", &receiver);
    let publish = async |node: &Node, to: &str| {
        let outgoing = OutgoingMessage {
            from: name("everywhere"),
            by_component: true,
            to: to.into(),
            message_type: String::new(),
            payload: Bytes::new(),
        };
        assert_eq!(node.router.publish(outgoing).await, Ok(1));
    };
    let count = |of: &AtomicUsize| of.load(Ordering::SeqCst);
    let until = async |of: &AtomicUsize, wanted: usize| {
        let waiting = async {
            while count(of) < wanted {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        waited.expect("an answer");
    };
    publish(&a, "only-b").await;
    until(&sender, 1).await;
    // To a component on the same node, too.
    publish(&b, "only-b").await;
    until(&namesake, 1).await;
    assert_eq!((count(&sender), count(&receiver)), (1, 2));
}

#[tokio::test]
async fn a_request_that_timed_out_or_is_given_up_is_forgotten() {
    let [a, b] = nodes().await;
    let (inbox, _mailbox) = Subscription::new(8, Overflow::Refuse);
    let registration = b.router.register(&name("only-b"), inbox).unwrap();
    let silent = a.router.request(message("", "only-b")).await.unwrap();
    let error = silent.wait(Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, RequestError::Timeout { .. }), "{error}");
    assert!(a.router.requests.lock().is_empty());
    let given_up = a.router.request(message("", "only-b")).await.unwrap();
    assert_eq!(a.router.requests.lock().len(), 1);
    drop(given_up);
    assert!(a.router.requests.lock().is_empty());
    let unknown = a.router.request(message("", "unknown")).await;
    assert!(matches!(unknown, Err(DeliveryError::NoReceiver(_))));
    assert!(a.router.requests.lock().is_empty());
    // A component that is down refuses with its reason, and an id has one owner.
    registration.set_down(Some("broken".into()));
    let down = b.router.send(message("", "only-b")).await.unwrap_err();
    assert_eq!(down.to_string(), "only-b is down: broken");
    let (inbox, _mailbox) = Subscription::new(8, Overflow::Refuse);
    assert!(b.router.register(&name("only-b"), inbox).is_err());
    for taken in ["only-b", "a", "b", "everywhere"] {
        let listening = a
            .router
            .listen(&[name(taken)], 8, &Budget::new(1 << 20))
            .await
            .unwrap();
        assert!(listening.is_err(), "{taken}");
    }
    b.node_inbox.stop().await.unwrap();
    assert!(b.router.registered.lock().contains_key("only-b"));
    assert!(!b.router.registered.lock().contains_key("b"));
}
