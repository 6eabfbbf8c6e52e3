# SPDX-License-Identifier: MIT
"""Counters under the names that `nstat` prints: group and field of `/proc/net/snmp` and
`/proc/net/netstat`, run together (`IpInReceives`, `TcpRetransSegs`, `TcpExtTCPTimeouts`).

Each process has a dict of them, `net.mib`. Incrementing a name that is not in the table raises
KeyError, so the first test that reaches a misspelt counter finds it.
"""

from typing import Final

_SNMP: Final = {
    "Ip": """
        Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos
        InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs
        ReasmFails FragOKs FragFails FragCreates OutTransmits""",
    "Icmp": """
        InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs
        InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps
        OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds
        OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps
        OutTimestampReps OutAddrMasks OutAddrMaskReps""",
    "Tcp": """
        RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets
        CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors""",
    "Udp": """
        InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors
        IgnoredMulti MemErrors""",
    "UdpLite": """
        InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors
        IgnoredMulti MemErrors""",
    "TcpExt": """
        SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled RcvPruned
        OfoPruned OutOfWindowIcmps LockDroppedIcmps ArpFilter TW TWRecycled TWKilled PAWSActive
        PAWSEstab BeyondWindow TSEcrRejected PAWSOldAck PAWSTimewait DelayedACKs DelayedACKLocked
        DelayedACKLost ListenOverflows ListenDrops TCPHPHits TCPPureAcks TCPHPAcks TCPRenoRecovery
        TCPSackRecovery TCPSACKReneging TCPSACKReorder TCPRenoReorder TCPTSReorder TCPFullUndo
        TCPPartialUndo TCPDSACKUndo TCPLossUndo TCPLostRetransmit TCPRenoFailures TCPSackFailures
        TCPLossFailures TCPFastRetrans TCPSlowStartRetrans TCPTimeouts TCPLossProbes
        TCPLossProbeRecovery TCPRenoRecoveryFail TCPSackRecoveryFail TCPRcvCollapsed
        TCPBacklogCoalesce TCPDSACKOldSent TCPDSACKOfoSent TCPDSACKRecv TCPDSACKOfoRecv
        TCPAbortOnData TCPAbortOnClose TCPAbortOnMemory TCPAbortOnTimeout TCPAbortOnLinger
        TCPAbortFailed TCPMemoryPressures TCPMemoryPressuresChrono TCPSACKDiscard
        TCPDSACKIgnoredOld TCPDSACKIgnoredNoUndo TCPSpuriousRTOs TCPMD5NotFound TCPMD5Unexpected
        TCPMD5Failure TCPSackShifted TCPSackMerged TCPSackShiftFallback TCPBacklogDrop
        PFMemallocDrop TCPMinTTLDrop TCPDeferAcceptDrop IPReversePathFilter TCPTimeWaitOverflow
        TCPReqQFullDoCookies TCPReqQFullDrop TCPRetransFail TCPRcvCoalesce TCPOFOQueue TCPOFODrop
        TCPOFOMerge TCPChallengeACK TCPSYNChallenge TCPFastOpenActive TCPFastOpenActiveFail
        TCPFastOpenPassive TCPFastOpenPassiveFail TCPFastOpenListenOverflow TCPFastOpenCookieReqd
        TCPFastOpenBlackhole TCPSpuriousRtxHostQueues BusyPollRxPackets TCPAutoCorking
        TCPFromZeroWindowAdv TCPToZeroWindowAdv TCPWantZeroWindowAdv TCPSynRetrans
        TCPOrigDataSent TCPHystartTrainDetect TCPHystartTrainCwnd TCPHystartDelayDetect
        TCPHystartDelayCwnd TCPACKSkippedSynRecv TCPACKSkippedPAWS TCPACKSkippedSeq
        TCPACKSkippedFinWait2 TCPACKSkippedTimeWait TCPACKSkippedChallenge TCPWinProbe
        TCPKeepAlive TCPMTUPFail TCPMTUPSuccess TCPDelivered TCPDeliveredCE TCPAckCompressed
        TCPZeroWindowDrop TCPRcvQDrop TCPWqueueTooBig TCPFastOpenPassiveAltKey TcpTimeoutRehash
        TcpDuplicateDataRehash TCPDSACKRecvSegs TCPDSACKIgnoredDubious TCPMigrateReqSuccess
        TCPMigrateReqFailure TCPPLBRehash TCPAORequired TCPAOBad TCPAOKeyNotFound TCPAOGood
        TCPAODroppedIcmps TCPPrequeued TCPPrequeueDropped""",
    "IpExt": """
        InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts InOctets
        OutOctets InMcastOctets OutMcastOctets InBcastOctets OutBcastOctets InCsumErrors
        InNoECTPkts InECT1Pkts InECT0Pkts InCEPkts ReasmOverlaps""",
    "Arp": """
        RcvdRequests RcvdReplies SentRequests SentReplies ResolveFailed Invalid""",
    "Dev": """
        RxPackets RxBytes TxPackets TxBytes RxErrors RxDropped RxMissedErrors RxCrcErrors
        TxErrors TxDropped TxCarrierErrors GroPackets GroMerged GsoPackets GsoSegs""",
}

NAMES: Final = tuple(group + field for group, fields in _SNMP.items() for field in fields.split())
"""Every counter. `Arp...` and `Dev...` are ours: Linux counts these per neighbour table and per
device."""


def fields(group: str) -> list[str]:
    """The counters of one group without its name, in the order of Linux's files."""
    return _SNMP[group].split()


def snmp_mib_init() -> dict[str, int]:
    """The counters of one process: `mib["IpInReceives"] += 1`. A plain dict, which Python and mypyc
    have a short way for."""
    return dict.fromkeys(NAMES, 0)


def nonzero(mib: dict[str, int]) -> dict[str, int]:
    """The counters that are not 0, in the table's order."""
    return {name: n for name, n in mib.items() if n}
