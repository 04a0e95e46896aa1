//! Consumer groups, the classic protocol: members join, a leader hands out
//! partitions, heartbeats keep members in.

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

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    Empty,
    /// Waits for its members to join again.
    PreparingRebalance,
    /// Waits for the leader's assignment.
    CompletingRebalance,
    Stable,
}

impl GroupState {
    /// As DescribeGroups names it.
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
    /// What the member said about itself under a protocol.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name.as_str() == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }
}

/// A group with members, or one that has had some.
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
    /// Looks at all groups under their lock.
    pub fn with<T>(&self, look: impl FnOnce(&mut HashMap<String, Group>) -> T) -> T {
        look(
            &mut self
                .groups
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        )
    }

    /// JoinGroup: answered when the whole group has joined.
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
        let (answer, answered) = oneshot::channel();
        let refused = self.with(|groups| {
            let group = groups
                .entry(request.group_id.to_string())
                .or_insert_with(Group::new);
            group.admit(&request, caller, answer)
        });
        if let Err(error) = refused {
            return refuse(error, request.member_id);
        }
        answered
            .await
            .unwrap_or_else(|_| refuse(ResponseError::UnknownMemberId, request.member_id))
    }

    /// SyncGroup: answered when the leader has handed out the partitions.
    pub async fn sync(&self, request: SyncGroupRequest) -> SyncGroupResponse {
        let refuse =
            |error: ResponseError| SyncGroupResponse::default().with_error_code(error.code());
        let (answer, answered) = oneshot::channel();
        let outcome = self.with(|groups| {
            let group = groups
                .get_mut(request.group_id.as_str())
                .ok_or(ResponseError::UnknownMemberId)?;
            group.sync(&request, answer)
        });
        match outcome {
            Err(error) => refuse(error),
            Ok(()) => answered
                .await
                .unwrap_or_else(|_| refuse(ResponseError::RebalanceInProgress)),
        }
    }

    pub fn heartbeat(&self, request: &HeartbeatRequest) -> HeartbeatResponse {
        let outcome = self.with(|groups| {
            let group = groups
                .get_mut(request.group_id.as_str())
                .ok_or(ResponseError::UnknownMemberId)?;
            group.check(
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

    /// Takes a member out.
    pub fn leave(
        &self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ResponseError> {
        self.with(|groups| {
            let group = groups
                .get_mut(group)
                .ok_or(ResponseError::UnknownMemberId)?;
            let by_instance = instance_id.and_then(|instance| group.member_of_instance(instance));
            let id = by_instance.unwrap_or_else(|| member_id.to_string());
            group
                .members
                .remove(&id)
                .ok_or(ResponseError::UnknownMemberId)?;
            group.rebalance();
            Ok(())
        })
    }

    /// Whether this caller may commit offsets for the group.
    pub fn may_commit(
        &self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), ResponseError> {
        self.with(|groups| match groups.get_mut(group) {
            Some(group) if generation >= 0 || !member_id.is_empty() => {
                group.check(member_id, instance_id, generation)
            }
            Some(group) if !group.members.is_empty() => Err(ResponseError::UnknownMemberId),
            None if generation >= 0 => Err(ResponseError::IllegalGeneration),
            _ => Ok(()),
        })
    }

    /// Takes out members that have been silent for too long and ends overdue rebalances.
    pub fn tick(&self) {
        let now = Instant::now();
        self.with(|groups| {
            // Groups that only commit need no entry: their offsets are kept elsewhere.
            groups.retain(|_, group| group.state != GroupState::Empty || !group.members.is_empty());
            for group in groups.values_mut() {
                let before = group.members.len();
                group.members.retain(|_, member| {
                    member.joining.is_some()
                        || member.syncing.is_some()
                        || now < member.last_seen + member.session_timeout
                });
                if group.members.len() < before {
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
    let name = if caller.client_id.is_empty() {
        "member"
    } else {
        &caller.client_id
    };
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
                member
                    .instance_id
                    .as_ref()
                    .is_some_and(|own| own.as_str() == instance_id)
            })
            .map(|(id, _)| id.clone())
    }

    /// Takes a member in, or one that joins again; rebalances where that is called for.
    fn admit(
        &mut self,
        request: &JoinGroupRequest,
        caller: &Caller,
        answer: oneshot::Sender<JoinGroupResponse>,
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
        let shared = protocols.iter().any(|(name, _)| {
            others
                .iter()
                .all(|member| member.protocols.iter().any(|(own, _)| own == name))
        });
        if !others.is_empty() && (self.protocol_type != *request.protocol_type || !shared) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let mut id = request.member_id.to_string();
        // A static member that comes back takes the place of its former self.
        if let Some(instance) = &request.group_instance_id
            && let Some(former) = self.member_of_instance(instance)
            && former != id
        {
            if !id.is_empty() {
                return Err(ResponseError::FencedInstanceId);
            }
            if let Some(evicted) = self.members.remove(&former)
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
        let unchanged = self
            .members
            .get(&id)
            .is_some_and(|member| member.protocols == protocols);
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
        member.joining = Some(answer);
        let answers_itself = unchanged
            && (self.state == GroupState::CompletingRebalance
                || (self.state == GroupState::Stable && is_follower));
        if answers_itself {
            self.answer_join(&id);
        } else {
            self.rebalance();
        }
        Ok(())
    }

    /// Starts a rebalance, or goes on with one that all have joined by now.
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
            let longest = self
                .members
                .values()
                .map(|member| member.rebalance_timeout)
                .max()
                .unwrap_or_default();
            self.rebalance_ends = Some(Instant::now() + longest);
            // Whoever waits for an assignment learns that it will not come.
            for member in self.members.values_mut() {
                member.syncing = None;
            }
        }
        if self.members.values().all(|member| member.joining.is_some()) {
            self.complete();
        }
    }

    /// All have joined: a new generation, and everyone is told.
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
        // The leader's order of preference, among what all members speak.
        let common = |name: &StrBytes| {
            self.members
                .values()
                .all(|member| member.protocols.iter().any(|(own, _)| own == name))
        };
        let chosen = self.members.get(&self.leader).and_then(|leader| {
            leader
                .protocols
                .iter()
                .map(|(name, _)| name)
                .find(|name| common(name))
        });
        self.protocol = chosen.map(|name| name.to_string()).unwrap_or_default();
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.answer_join(&id);
        }
    }

    fn answer_join(&mut self, id: &str) {
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
                // A client that has gone away will be missed by its heartbeats.
                let _ = joining.send(response);
            }
        }
    }

    fn sync(
        &mut self,
        request: &SyncGroupRequest,
        answer: oneshot::Sender<SyncGroupResponse>,
    ) -> Result<(), ResponseError> {
        self.check(
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
            member.syncing = Some(answer);
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

    /// A sign of life from a member of this generation.
    fn check(
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
        let member = self
            .members
            .get_mut(member_id)
            .ok_or(ResponseError::UnknownMemberId)?;
        member.last_seen = Instant::now();
        if generation == self.generation {
            Ok(())
        } else {
            Err(ResponseError::IllegalGeneration)
        }
    }
}
