//! `wasi:keyvalue` for guests: each call becomes one verb of the key-value store, in the plugin's
//! own name, and what goes wrong becomes words for the plugin's author. Keeps nothing; where things
//! are kept, and what the limits are, is `hostel_keyvalue`'s.

use super::{
    bindings::keyvalue::{
        atomics, batch,
        store::{self, Error, KeyResponse},
    },
    guest::Guest,
};
use hostel_keyvalue::{Bucket, Change, KeyValue};
use hostel_runtime::log_limit::LogLimit;
use hostel_task::Name;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTableError};

/// Why a call of the guest gives no value.
pub enum Refusal {
    Guest(Error),
    /// The guest broke a rule of handles.
    Trap(wasmtime::Error),
}

type Answer<T> = Result<T, Refusal>;

pub fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    atomics::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    batch::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)
}

impl Guest {
    /// The store, and whose name it is used in.
    fn lent(&self) -> Answer<(&dyn KeyValue, &Name)> {
        let lent = self.granted.as_ref().and_then(|granted| {
            let keyvalue = granted.outside.keyvalue.as_deref()?;
            Some((keyvalue, &granted.plugin))
        });
        lent.ok_or(Refusal::Guest(Error::AccessDenied))
    }

    /// The store, and what `handle` stands for in it.
    fn kept(&self, handle: &Resource<Bucket>) -> Answer<(&dyn KeyValue, &Bucket)> {
        Ok((self.lent()?.0, self.resources.get(handle)?))
    }

    async fn change(&mut self, handle: &Resource<Bucket>, changes: Vec<Change>) -> Answer<()> {
        let (keyvalue, bucket) = self.kept(handle)?;
        Ok(keyvalue.apply(bucket, changes).await?)
    }
}

impl store::Host for Guest {
    async fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        let (keyvalue, plugin) = self.lent()?;
        let bucket = keyvalue.bucket(plugin, &identifier)?;
        Ok(self.resources.push(bucket)?)
    }

    fn convert_error(&mut self, refusal: Refusal) -> wasmtime::Result<Error> {
        match refusal {
            Refusal::Guest(error) => Ok(error),
            Refusal::Trap(error) => Err(error),
        }
    }
}

impl store::HostBucket for Guest {
    async fn get(&mut self, handle: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        let (keyvalue, bucket) = self.kept(&handle)?;
        let values = keyvalue.get(bucket, vec![key]).await?;
        Ok(values.into_iter().next().flatten())
    }

    async fn set(&mut self, handle: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        self.change(&handle, vec![Change::Set { key, value }]).await
    }

    async fn delete(&mut self, handle: Resource<Bucket>, key: String) -> Answer<()> {
        self.change(&handle, vec![Change::Delete { key }]).await
    }

    async fn exists(&mut self, handle: Resource<Bucket>, key: String) -> Answer<bool> {
        let (keyvalue, bucket) = self.kept(&handle)?;
        let there = keyvalue.exists(bucket, vec![key]).await?;
        Ok(there.first() == Some(&true))
    }

    async fn list_keys(
        &mut self,
        handle: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Answer<KeyResponse> {
        let (keyvalue, bucket) = self.kept(&handle)?;
        let page = keyvalue.list(bucket, cursor).await?;
        Ok(KeyResponse {
            keys: page.keys,
            cursor: page.next,
        })
    }

    async fn drop(&mut self, handle: Resource<Bucket>) -> wasmtime::Result<()> {
        self.resources.delete(handle)?;
        Ok(())
    }
}

impl atomics::Host for Guest {
    async fn increment(
        &mut self,
        handle: Resource<Bucket>,
        key: String,
        delta: u64,
    ) -> Answer<u64> {
        let (keyvalue, bucket) = self.kept(&handle)?;
        Ok(keyvalue.increment(bucket, key, delta).await?)
    }
}

impl batch::Host for Guest {
    async fn get_many(
        &mut self,
        handle: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let (keyvalue, bucket) = self.kept(&handle)?;
        let values = keyvalue.get(bucket, keys.clone()).await?;
        let pairs = keys.into_iter().zip(values);
        Ok(pairs.map(|(key, value)| Some((key, value?))).collect())
    }

    async fn set_many(
        &mut self,
        handle: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Answer<()> {
        let set = |(key, value)| Change::Set { key, value };
        let changes = pairs.into_iter().map(set).collect();
        self.change(&handle, changes).await
    }

    async fn delete_many(&mut self, handle: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        let delete = |key| Change::Delete { key };
        let changes = keys.into_iter().map(delete).collect();
        self.change(&handle, changes).await
    }
}

/// What is logged of a broken store: guests ask it as often as they like.
static BROKEN: LogLimit = LogLimit::of_retries();

impl From<hostel_keyvalue::Error> for Refusal {
    fn from(error: hostel_keyvalue::Error) -> Self {
        use hostel_keyvalue::Error as Kept;
        let text = match error {
            Kept::Limit(text) | Kept::Invalid(text) => text,
            // The engine has told the operator.
            Kept::Unavailable {
                outcome_unknown: false,
                ..
            } => {
                "the key-value store is unavailable and has changed nothing; try again later".into()
            }
            Kept::Unavailable {
                outcome_unknown: true,
                ..
            } => "the key-value store has failed, and may have made this change or not; read it \
                  again later"
                .into(),
            error @ (Kept::Corrupt(_) | Kept::Misconfigured(_)) => {
                if let Some(left_out) = BROKEN.permit() {
                    tracing::error!(left_out, "{error}");
                }
                "the key-value store is broken; the node's log says why, for its operator".into()
            }
        };
        Refusal::Guest(Error::Other(text))
    }
}

impl From<ResourceTableError> for Refusal {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => {
                let text = "too many open stores; drop those that are no longer used";
                Refusal::Guest(Error::Other(text.into()))
            }
            error => Refusal::Trap(error.into()),
        }
    }
}
