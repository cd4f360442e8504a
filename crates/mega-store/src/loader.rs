//! Loading a whole tree beside the present truth.
#![expect(
    missing_docs,
    clippy::missing_errors_doc,
    unused_variables,
    reason = "signatures first"
)]

use mega_proto::Seqno;

use crate::error::StoreError;
use crate::rows::{NodeRow, ShareRow};
use crate::store::unbuilt;

#[derive(Debug)]
pub struct TreeLoader(());

impl TreeLoader {
    pub fn node(&mut self, row: NodeRow) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn share(&mut self, row: ShareRow) -> Result<(), StoreError> {
        unbuilt()
    }
    pub fn finish(self, sn: &Seqno) -> Result<(), StoreError> {
        unbuilt()
    }
}
