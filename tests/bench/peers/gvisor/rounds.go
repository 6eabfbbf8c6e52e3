// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// The sizes of agent.py, which says what they are.
const (
	chunk       = 1 << 20
	request     = 64
	datagram    = 64
	window      = 128
	fin         = 0xFFFFFFFF
	lastRequest = 'Q'
)

// failure ends a round, and is its answer.
type failure string

func (f failure) Error() string { return string(f) }

func check(what string, err tcpip.Error) {
	if err != nil {
		panic(failure(fmt.Sprintf("%s: %s", what, err)))
	}
}

type agent struct {
	stack *stack.Stack
}

// sock is an endpoint with blocking calls. One goroutine uses it.
type sock struct {
	ep       tcpip.Endpoint
	queue    *waiter.Queue
	readable chan struct{}
	reading  waiter.Entry
	from     tcpip.FullAddress
}

func newSock(ep tcpip.Endpoint, queue *waiter.Queue) *sock {
	s := &sock{ep: ep, queue: queue}
	s.reading, s.readable = waiter.NewChannelEntry(waiter.ReadableEvents)
	queue.EventRegister(&s.reading)
	return s
}

func (s *sock) close() {
	s.queue.EventUnregister(&s.reading)
	s.ep.Close()
}

// wait waits until something can be read, or the time is over; 0: without limit.
func (s *sock) wait(limit time.Duration) bool {
	if limit == 0 {
		<-s.readable
		return true
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.readable:
		return true
	case <-timer.C:
		return false
	}
}

// recv reads what there is; 0 at the end of a stream, -1 when the time is over.
func (s *sock) recv(room []byte, limit time.Duration) int {
	for {
		into := tcpip.SliceWriter(room)
		got, err := s.ep.Read(&into, tcpip.ReadOptions{NeedRemoteAddr: true})
		switch err.(type) {
		case nil:
			s.from = got.RemoteAddr
			return got.Count
		case *tcpip.ErrClosedForReceive:
			return 0
		case *tcpip.ErrWouldBlock:
			if !s.wait(limit) {
				return -1
			}
		default:
			check("read", err)
		}
	}
}

// send writes all of it.
func (s *sock) send(data []byte) {
	from := bytes.NewReader(data)
	for {
		_, err := s.ep.Write(from, tcpip.WriteOptions{})
		if _, full := err.(*tcpip.ErrWouldBlock); full {
			s.waitWritable()
			continue
		}
		check("write", err)
		if from.Len() == 0 {
			return
		}
	}
}

func (s *sock) waitWritable() {
	entry, writable := waiter.NewChannelEntry(waiter.WritableEvents)
	s.queue.EventRegister(&entry)
	defer s.queue.EventUnregister(&entry)
	if s.ep.Readiness(waiter.WritableEvents) == 0 {
		<-writable
	}
}

func (a *agent) listen(given order) *sock {
	queue := new(waiter.Queue)
	ep, err := a.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, queue)
	check("socket", err)
	congestion := tcpip.CongestionControlOption(given.Congestion)
	if given.Congestion != "" {
		check(given.Congestion, ep.SetSockOpt(&congestion))
	}
	s := newSock(ep, queue)
	check("bind", ep.Bind(tcpip.FullAddress{Port: given.Port}))
	check("listen", ep.Listen(128))
	say(map[string]bool{"ready": true})
	return s
}

func (s *sock) accept(nodelay bool) *sock {
	for {
		ep, queue, err := s.ep.Accept(nil)
		if _, none := err.(*tcpip.ErrWouldBlock); none {
			s.wait(0)
			continue
		}
		check("accept", err)
		ep.SocketOptions().SetDelayOption(!nodelay)
		return newSock(ep, queue)
	}
}

func (a *agent) acceptOne(given order, nodelay bool) *sock {
	listener := a.listen(given)
	defer listener.close()
	return listener.accept(nodelay)
}

func (a *agent) serveSink(given order) result {
	s := a.acceptOne(given, false)
	defer s.close()
	room := make([]byte, chunk)
	received := uint64(0)
	start := time.Now()
	for {
		n := s.recv(room, 0)
		if n == 0 {
			return result{received, time.Since(start).Seconds()}
		}
		received += uint64(n)
	}
}

func (a *agent) serveSource(given order) result {
	s := a.acceptOne(given, false)
	defer s.close()
	data := make([]byte, chunk)
	sent := uint64(0)
	start := time.Now()
	for time.Since(start).Seconds() < given.Seconds {
		s.send(data)
		sent += chunk
	}
	check("shutdown", s.ep.Shutdown(tcpip.ShutdownWrite))
	if s.recv(data, 0) != 0 {
		panic(failure("the receiver of a bulk round sent data"))
	}
	return result{sent, time.Since(start).Seconds()}
}

func (a *agent) serveEcho(given order) result {
	s := a.acceptOne(given, true)
	defer s.close()
	room := make([]byte, 1)
	n := uint64(0)
	for s.recv(room, 0) > 0 {
		s.send(room)
		n++
	}
	return result{Bytes: n}
}

func (a *agent) serveConnections(given order) result {
	listener := a.listen(given)
	defer listener.close()
	n := uint64(0)
	for last := false; !last; n++ {
		last = answerOne(listener.accept(false))
	}
	return result{Bytes: n}
}

// answerOne answers the request of a connection, and says whether it was the last one.
func answerOne(s *sock) bool {
	defer s.close()
	room := make([]byte, request)
	for got := 0; got < request; {
		n := s.recv(room[got:], 0)
		if n == 0 {
			panic(failure("closed in the middle of a request"))
		}
		got += n
	}
	last := room[0] == lastRequest
	s.send(make([]byte, request))
	if s.recv(room, 0) != 0 {
		panic(failure("more than one request on a connection"))
	}
	return last
}

// datagramPeer is a socket that is connected to the first who says something.
func (a *agent) datagramPeer(given order) *sock {
	queue := new(waiter.Queue)
	ep, err := a.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, queue)
	check("socket", err)
	s := newSock(ep, queue)
	check("bind", ep.Bind(tcpip.FullAddress{Port: given.Port}))
	say(map[string]bool{"ready": true})
	s.recv(make([]byte, datagram), 0)
	check("connect", ep.Connect(s.from))
	return s
}

func (a *agent) serveDatagramSink(given order) result {
	s := a.datagramPeer(given)
	defer s.close()
	s.send([]byte("hello"))
	room, answer := make([]byte, datagram), make([]byte, 4)
	received := uint64(0)
	var start, last time.Time
	for {
		n := s.recv(room, 0)
		if binary.BigEndian.Uint32(room) == fin {
			for i := 0; i < 3; i++ {
				s.send(room[:n])
			}
			return result{received, last.Sub(start).Seconds()}
		}
		if received == 0 {
			start = time.Now()
		}
		received++
		if received%(window/4) == 0 {
			last = time.Now()
			binary.BigEndian.PutUint32(answer, uint32(received))
			s.send(answer)
		}
	}
}

func (a *agent) serveDatagramSource(given order) result {
	s := a.datagramPeer(given)
	defer s.close()
	data, room := make([]byte, datagram), make([]byte, datagram)
	sent, acked := uint32(0), uint32(0)
	start := time.Now()
	for time.Since(start).Seconds() < given.Seconds {
		for sent-acked < window {
			binary.BigEndian.PutUint32(data, sent)
			s.send(data)
			sent++
		}
		if s.recv(room, 50*time.Millisecond) < 0 {
			acked = sent
		} else if answer := binary.BigEndian.Uint32(room); answer > acked {
			acked = answer
		}
	}
	elapsed := time.Since(start).Seconds()
	binary.BigEndian.PutUint32(data, fin)
	for i := 0; i < 20; i++ {
		s.send(data)
		for s.recv(room, 100*time.Millisecond) >= 0 {
			if binary.BigEndian.Uint32(room) == fin {
				return result{uint64(sent), elapsed}
			}
		}
	}
	return result{uint64(sent), elapsed}
}
