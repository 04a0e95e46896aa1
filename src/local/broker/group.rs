//! Consumer groups with the classic protocol: members join, the leader assigns
//! partitions, heartbeats keep the members alive.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;

use crate::local::broker::caller::Caller;

/// State of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    Empty,
    /// Waits for all members to rejoin.
    PreparingRebalance,
    /// Waits for the assignment from the leader.
    CompletingRebalance,
    Stable,
}

impl GroupState {
    /// Returns the name in DescribeGroups.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
        }
    }
}

/// A member of a group.
pub struct Member {
    pub instance_id: Option<StrBytes>,
    pub client_id: String,
    pub host: String,
    pub assignment: Bytes,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    protocols: Vec<(StrBytes, Bytes)>,
    last_seen: Instant,
    joining: Option<oneshot::Sender<JoinGroupResponse>>,
    syncing: Option<oneshot::Sender<SyncGroupResponse>>,
}

impl Member {
    /// Returns the metadata of the member for a protocol; empty for an unsupported protocol.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name.as_str() == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }
}

/// A group that has or had members.
pub struct Group {
    pub state: GroupState,
    pub protocol_type: String,
    pub protocol: String,
    pub members: BTreeMap<String, Member>,
    generation: i32,
    leader: String,
    rebalance_ends: Option<Instant>,
}

/// All groups.
#[derive(Default)]
pub struct Groups {
    groups: Mutex<HashMap<String, Group>>,
}

impl Groups {
    /// Calls `operation` with all groups while holding their lock.
    pub fn with<T>(&self, operation: impl FnOnce(&mut HashMap<String, Group>) -> T) -> T {
        operation(&mut self.groups.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// JoinGroup. Responds when all members of the group have joined.
    pub async fn join(
        &self,
        request: JoinGroupRequest,
        version: i16,
        caller: &Caller,
    ) -> JoinGroupResponse {
        let refuse = |error: ResponseError, member_id: StrBytes| {
            JoinGroupResponse::default()
                .with_error_code(error.code())
                .with_member_id(member_id)
                .with_generation_id(-1)
        };
        if request.group_id.is_empty() {
            return refuse(ResponseError::InvalidGroupId, request.member_id);
        }
        if request.protocols.is_empty() {
            return refuse(ResponseError::InconsistentGroupProtocol, request.member_id);
        }
        if request.member_id.is_empty() && request.group_instance_id.is_none() && version >= 4 {
            let id = new_member_id(caller);
            return refuse(ResponseError::MemberIdRequired, id.into());
        }
        let (sender, receiver) = oneshot::channel();
        let admitted = self.with(|groups| {
            let group = groups.entry(request.group_id.to_string()).or_insert_with(Group::new);
            group.join(&request, caller, sender)
        });
        if let Err(error) = admitted {
            return refuse(error, request.member_id);
        }
        receiver.await.unwrap_or_else(|_| refuse(ResponseError::UnknownMemberId, request.member_id))
    }

    /// SyncGroup. Responds when the leader has sent the assignments.
    pub async fn sync(&self, request: SyncGroupRequest) -> SyncGroupResponse {
        let refuse =
            |error: ResponseError| SyncGroupResponse::default().with_error_code(error.code());
        let (sender, receiver) = oneshot::channel();
        let outcome = self.with(|groups| {
            let group =
                groups.get_mut(request.group_id.as_str()).ok_or(ResponseError::UnknownMemberId)?;
            group.sync(&request, sender)
        });
        match outcome {
            Err(error) => refuse(error),
            Ok(()) => receiver.await.unwrap_or_else(|_| refuse(ResponseError::RebalanceInProgress)),
        }
    }

    pub fn heartbeat(&self, request: &HeartbeatRequest) -> HeartbeatResponse {
        let outcome = self.with(|groups| {
            let group =
                groups.get_mut(request.group_id.as_str()).ok_or(ResponseError::UnknownMemberId)?;
            group.validate_and_touch(
                &request.member_id,
                request.group_instance_id.as_deref(),
                request.generation_id,
            )?;
            match group.state {
                GroupState::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
                _ => Ok(()),
            }
        });
        HeartbeatResponse::default().with_error_code(outcome.err().map_or(0, |error| error.code()))
    }

    /// Removes a member from its group and starts a rebalance.
    pub fn leave(
        &self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ResponseError> {
        self.with(|groups| {
            let group = groups.get_mut(group).ok_or(ResponseError::UnknownMemberId)?;
            let by_instance = instance_id.and_then(|instance| group.member_of_instance(instance));
            let id = by_instance.unwrap_or_else(|| member_id.to_string());
            group.members.remove(&id).ok_or(ResponseError::UnknownMemberId)?;
            group.rebalance();
            Ok(())
        })
    }

    /// Validates that the member may commit offsets for the group. Counts as a heartbeat.
    pub fn validate_offset_commit(
        &self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), ResponseError> {
        self.with(|groups| match groups.get_mut(group) {
            Some(group) if generation >= 0 || !member_id.is_empty() => {
                group.validate_and_touch(member_id, instance_id, generation)
            }
            Some(group) if !group.members.is_empty() => Err(ResponseError::UnknownMemberId),
            None if generation >= 0 => Err(ResponseError::IllegalGeneration),
            _ => Ok(()),
        })
    }

    /// Removes members whose session has timed out and completes overdue rebalances.
    pub fn tick(&self) {
        let now = Instant::now();
        self.with(|groups| {
            // Groups that only commit offsets need no entry: `Offsets` stores their offsets.
            groups.retain(|_, group| group.state != GroupState::Empty || !group.members.is_empty());
            for group in groups.values_mut() {
                let previous_count = group.members.len();
                group.members.retain(|_, member| {
                    member.joining.is_some()
                        || member.syncing.is_some()
                        || now < member.last_seen + member.session_timeout
                });
                if group.members.len() < previous_count {
                    group.rebalance();
                }
                if group.state == GroupState::PreparingRebalance
                    && group.rebalance_ends.is_some_and(|end| now >= end)
                {
                    group.members.retain(|_, member| member.joining.is_some());
                    group.complete();
                }
            }
        });
    }
}

fn new_member_id(caller: &Caller) -> String {
    let name = if caller.client_id.is_empty() { "member" } else { &caller.client_id };
    format!("{name}-{}", uuid::Uuid::new_v4())
}

fn milliseconds(number: i32) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}

impl Group {
    fn new() -> Self {
        Self {
            state: GroupState::Empty,
            protocol_type: String::new(),
            protocol: String::new(),
            members: BTreeMap::new(),
            generation: 0,
            leader: String::new(),
            rebalance_ends: None,
        }
    }

    fn member_of_instance(&self, instance_id: &str) -> Option<String> {
        self.members
            .iter()
            .find(|(_, member)| {
                member.instance_id.as_ref().is_some_and(|id| id.as_str() == instance_id)
            })
            .map(|(id, _)| id.clone())
    }

    /// Adds a member or updates a rejoining one, and starts a rebalance if necessary.
    fn join(
        &mut self,
        request: &JoinGroupRequest,
        caller: &Caller,
        sender: oneshot::Sender<JoinGroupResponse>,
    ) -> Result<(), ResponseError> {
        let protocols: Vec<(StrBytes, Bytes)> = request
            .protocols
            .iter()
            .map(|protocol| (protocol.name.clone(), protocol.metadata.clone()))
            .collect();
        let others: Vec<&Member> = self
            .members
            .iter()
            .filter(|(id, _)| **id != *request.member_id)
            .map(|(_, member)| member)
            .collect();
        let has_common_protocol = protocols.iter().any(|(name, _)| {
            others.iter().all(|member| member.protocols.iter().any(|(other, _)| other == name))
        });
        if !others.is_empty()
            && (self.protocol_type != *request.protocol_type || !has_common_protocol)
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let mut id = request.member_id.to_string();
        // A static member that rejoins without a member id replaces its previous instance.
        if let Some(instance) = &request.group_instance_id
            && let Some(previous) = self.member_of_instance(instance)
            && previous != id
        {
            if !id.is_empty() {
                return Err(ResponseError::FencedInstanceId);
            }
            if let Some(evicted) = self.members.remove(&previous)
                && let Some(joining) = evicted.joining
            {
                let _ = joining.send(
                    JoinGroupResponse::default()
                        .with_error_code(ResponseError::FencedInstanceId.code())
                        .with_generation_id(-1),
                );
            }
        }
        if id.is_empty() {
            id = new_member_id(caller);
        }
        self.protocol_type = request.protocol_type.to_string();
        let is_unchanged =
            self.members.get(&id).is_some_and(|member| member.protocols == protocols);
        let is_follower = self.leader != id;
        let session_timeout = milliseconds(request.session_timeout_ms);
        let rebalance_timeout = if request.rebalance_timeout_ms > 0 {
            milliseconds(request.rebalance_timeout_ms)
        } else {
            session_timeout
        };
        let member = self.members.entry(id.clone()).or_insert_with(|| Member {
            instance_id: None,
            client_id: String::new(),
            host: String::new(),
            assignment: Bytes::new(),
            session_timeout,
            rebalance_timeout,
            protocols: Vec::new(),
            last_seen: Instant::now(),
            joining: None,
            syncing: None,
        });
        member.instance_id = request.group_instance_id.clone();
        member.client_id = caller.client_id.clone();
        member.host = caller.host.clone();
        member.session_timeout = session_timeout;
        member.rebalance_timeout = rebalance_timeout;
        member.protocols = protocols;
        member.last_seen = Instant::now();
        member.joining = Some(sender);
        let needs_no_rebalance = is_unchanged
            && (self.state == GroupState::CompletingRebalance
                || (self.state == GroupState::Stable && is_follower));
        if needs_no_rebalance {
            self.send_join_response(&id);
        } else {
            self.rebalance();
        }
        Ok(())
    }

    /// Starts a rebalance, and completes it if all members have joined.
    fn rebalance(&mut self) {
        if self.members.is_empty() {
            self.state = GroupState::Empty;
            self.generation += 1;
            self.leader.clear();
            self.rebalance_ends = None;
            return;
        }
        if self.state != GroupState::PreparingRebalance {
            self.state = GroupState::PreparingRebalance;
            let timeout = self
                .members
                .values()
                .map(|member| member.rebalance_timeout)
                .max()
                .unwrap_or_default();
            self.rebalance_ends = Some(Instant::now() + timeout);
            // Dropping the senders tells waiting members that their assignment is cancelled.
            for member in self.members.values_mut() {
                member.syncing = None;
            }
        }
        if self.members.values().all(|member| member.joining.is_some()) {
            self.complete();
        }
    }

    /// Completes a rebalance: starts a new generation and responds to all joined members.
    fn complete(&mut self) {
        self.rebalance_ends = None;
        if self.members.is_empty() {
            self.rebalance();
            return;
        }
        self.generation += 1;
        self.state = GroupState::CompletingRebalance;
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().cloned().unwrap_or_default();
        }
        // The first protocol in the order of the leader that all members support.
        let is_common = |name: &StrBytes| {
            self.members
                .values()
                .all(|member| member.protocols.iter().any(|(other, _)| other == name))
        };
        let chosen = self.members.get(&self.leader).and_then(|leader| {
            leader.protocols.iter().map(|(name, _)| name).find(|name| is_common(name))
        });
        self.protocol = chosen.map(|name| name.to_string()).unwrap_or_default();
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.send_join_response(&id);
        }
    }

    fn send_join_response(&mut self, id: &str) {
        let members = if self.leader == id {
            let described = self.members.iter().map(|(id, member)| {
                JoinGroupResponseMember::default()
                    .with_member_id(id.clone().into())
                    .with_group_instance_id(member.instance_id.clone())
                    .with_metadata(member.metadata(&self.protocol))
            });
            described.collect()
        } else {
            Vec::new()
        };
        let response = JoinGroupResponse::default()
            .with_generation_id(self.generation)
            .with_protocol_type(Some(self.protocol_type.clone().into()))
            .with_protocol_name(Some(self.protocol.clone().into()))
            .with_leader(self.leader.clone().into())
            .with_member_id(id.to_string().into())
            .with_members(members);
        if let Some(member) = self.members.get_mut(id) {
            member.last_seen = Instant::now();
            if let Some(joining) = member.joining.take() {
                // Fails if the client has disconnected. Its session then times out.
                let _ = joining.send(response);
            }
        }
    }

    fn sync(
        &mut self,
        request: &SyncGroupRequest,
        sender: oneshot::Sender<SyncGroupResponse>,
    ) -> Result<(), ResponseError> {
        self.validate_and_touch(
            &request.member_id,
            request.group_instance_id.as_deref(),
            request.generation_id,
        )?;
        match self.state {
            GroupState::Empty => return Err(ResponseError::UnknownMemberId),
            GroupState::PreparingRebalance => return Err(ResponseError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => {}
        }
        if let Some(member) = self.members.get_mut(request.member_id.as_str()) {
            member.syncing = Some(sender);
        }
        if self.state == GroupState::CompletingRebalance && self.leader == *request.member_id {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
            }
            for assignment in &request.assignments {
                if let Some(member) = self.members.get_mut(assignment.member_id.as_str()) {
                    member.assignment = assignment.assignment.clone();
                }
            }
            self.state = GroupState::Stable;
        }
        if self.state == GroupState::Stable {
            let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
            for member in self.members.values_mut() {
                if let Some(syncing) = member.syncing.take() {
                    member.last_seen = Instant::now();
                    let response =
                        SyncGroupResponse::default().with_assignment(member.assignment.clone());
                    let _ = syncing.send(
                        response
                            .with_protocol_type(Some(protocol_type.clone().into()))
                            .with_protocol_name(Some(protocol.clone().into())),
                    );
                }
            }
        }
        Ok(())
    }

    /// Validates member and generation, and records a heartbeat of the member.
    fn validate_and_touch(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), ResponseError> {
        if instance_id
            .and_then(|instance| self.member_of_instance(instance))
            .is_some_and(|owner| owner != member_id)
        {
            return Err(ResponseError::FencedInstanceId);
        }
        let member = self.members.get_mut(member_id).ok_or(ResponseError::UnknownMemberId)?;
        member.last_seen = Instant::now();
        if generation == self.generation { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }
}
