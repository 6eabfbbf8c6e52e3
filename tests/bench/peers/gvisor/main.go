// SPDX-License-Identifier: MIT

// The serving end of a measured round on gVisor's netstack.
//
// It takes the same orders as agent.py, one JSON object a line, and answers each with one line. The
// stack runs in this process, on an AF_PACKET socket that has a virtio header for each frame, as in
// runsc. Debian ships gVisor as Go source, so build.py compiles this program when it is needed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	nic = 1
	// With a virtio header and the Ethernet header, 65536 is more than the kernel gives to a
	// device in one piece: it then cuts every super-segment in software.
	gsoMaxSize = 65500
	// runsc's size. By default a burst of super-segments does not fit.
	packetBuffer = 4 << 20
)

// order is what bench.py says: fields that only others need are left out.
type order struct {
	Op         string  `json:"op"`
	Port       uint16  `json:"port"`
	Seconds    float64 `json:"seconds"`
	Congestion string  `json:"congestion"`
}

// result is the answer of a round.
type result struct {
	Bytes   uint64  `json:"bytes"`
	Seconds float64 `json:"seconds,omitempty"`
}

func say(answer any) {
	line, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

// packetSocket is an AF_PACKET socket on the interface, with a virtio header for each frame.
func packetSocket(device *net.Interface) (int, error) {
	protocol := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return -1, fmt.Errorf("a socket of AF_PACKET: %v", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return -1, fmt.Errorf("PACKET_VNET_HDR: %v", err)
	}
	for force, option := range map[int]int{
		unix.SO_RCVBUFFORCE: unix.SO_RCVBUF,
		unix.SO_SNDBUFFORCE: unix.SO_SNDBUF,
	} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, packetBuffer) != nil {
			// An ordinary user's namespace may not; then the system's limit is the size.
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, packetBuffer)
		}
	}
	at := unix.SockaddrLinklayer{Protocol: protocol, Ifindex: device.Index}
	if err := unix.Bind(fd, &at); err != nil {
		return -1, fmt.Errorf("bind to %s: %v", device.Name, err)
	}
	return fd, nil
}

// tcpipAddress is four bytes in the stack's type, which is a string in some of its versions and a
// struct in others; the one of a header is right in all.
func tcpipAddress(ip net.IP) tcpip.Address {
	head := make([]byte, header.IPv4MinimumSize)
	copy(head[12:16], ip.To4())
	return header.IPv4(head).SourceAddress()
}

// newStack is a stack with one interface and one address.
func newStack(name, cidr string) (*stack.Stack, error) {
	ip, network, err := net.ParseCIDR(cidr)
	if err != nil || ip.To4() == nil {
		return nil, fmt.Errorf("-address %q: takes one such as 10.79.0.2/24", cidr)
	}
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("-interface %s: %v", name, err)
	}
	fd, err := packetSocket(device)
	if err != nil {
		return nil, err
	}
	link, err := fdbased.New(&fdbased.Options{
		FDs:            []int{fd},
		MTU:            uint32(device.MTU),
		EthernetHeader: true,
		Address:        tcpip.LinkAddress(device.HardwareAddr),
		// As runsc since Linux 5.6: a ring. By recvmmsg a byte costs 1.1, a datagram 2 times as much.
		PacketDispatchMode: fdbased.PacketMMap,
		GSOMaxSize:         gsoMaxSize,
		// What comes from the same machine has no checksums yet.
		RXChecksumOffload: true,
	})
	if err != nil {
		return nil, fmt.Errorf("fdbased: %v", err)
	}
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4,
		},
	})
	if err := s.CreateNIC(nic, link); err != nil {
		return nil, fmt.Errorf("CreateNIC: %v", err)
	}
	ones, _ := network.Mask.Size()
	address := tcpip.AddressWithPrefix{Address: tcpipAddress(ip), PrefixLen: ones}
	at := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address}
	if err := s.AddProtocolAddress(nic, at, stack.AddressProperties{}); err != nil {
		return nil, fmt.Errorf("AddProtocolAddress: %v", err)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: address.Subnet(), NIC: nic}})
	return s, tune(s)
}

// tune sets what runsc sets.
func tune(s *stack.Stack) error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &moderate} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return fmt.Errorf("%T: %v", option, err)
		}
	}
	return nil
}

// obey carries out one order.
func (a *agent) obey(line []byte) (found result, err error) {
	defer func() {
		if failed := recover(); failed != nil {
			text, ours := failed.(failure)
			if !ours {
				panic(failed)
			}
			err = text
		}
	}()
	var given order
	if err := json.Unmarshal(line, &given); err != nil {
		return result{}, err
	}
	rounds := map[string]func(order) result{
		"serve_sink":            a.serveSink,
		"serve_source":          a.serveSource,
		"serve_echo":            a.serveEcho,
		"serve_connections":     a.serveConnections,
		"serve_datagram_sink":   a.serveDatagramSink,
		"serve_datagram_source": a.serveDatagramSource,
	}
	round, known := rounds[given.Op]
	if !known {
		return result{}, fmt.Errorf("no such order: %s", given.Op)
	}
	return round(given), nil
}

func main() {
	name := flag.String("interface", "", "the interface; the kernel has no address there")
	address := flag.String("address", "", "ours, such as 10.79.0.2/24")
	flag.Parse()
	s, err := newStack(*name, *address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	a := &agent{stack: s}
	say(map[string]bool{"started": true})
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		if found, err := a.obey(orders.Bytes()); err != nil {
			say(map[string]string{"error": err.Error()})
		} else {
			say(found)
		}
	}
}
