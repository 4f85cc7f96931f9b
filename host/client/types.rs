//! The calls about task types and their limits.

use super::DistributedClient;
use crate::proto::hostel::v1::{ListTypesRequest, ListTypesResponse, SetLimitsRequest, TypeStatus};
use tonic::Status;

impl DistributedClient {
    /// Lists one page of task types with their limits, or of the groups of one type.
    pub async fn list_types(
        &mut self,
        request: ListTypesRequest,
    ) -> Result<ListTypesResponse, Status> {
        self.retry(request, |mut client, request| async move {
            client.types.list_types(request).await
        })
        .await
    }

    /// Changes limits of a task type, of each of its groups or of one of them, and returns the type as it is
    /// then.
    pub async fn set_limits(&mut self, request: SetLimitsRequest) -> Result<TypeStatus, Status> {
        let response = self
            .retry(request, |mut client, request| async move {
                client.types.set_limits(request).await
            })
            .await?;
        Ok(response.r#type.unwrap_or_default())
    }
}
