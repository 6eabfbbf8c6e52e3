// SPDX-License-Identifier: MIT
//
// lwIP's interface on a TAP.
//
// The library has one of its own, tapif. It is not used, because it takes a frame's memory from
// lwIP's pool: there the library has blocks of 592 bytes, and its headers say that they hold a whole
// frame. Here each frame gets memory of its own length from the heap (PBUF_RAM).

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <lwip/etharp.h>
#include <lwip/pbuf.h>
#include <lwip/tcpip.h>
#include <netif/ethernet.h>

#include "driver.h"

enum { FRAME_MAX = 1514, PIECES_MAX = 16 };

static struct netif tap;
static int tap_fd = -1;

// A frame that does not fit into the device's queue is lost, as on a cable.
static err_t tap_linkoutput(struct netif *netif, struct pbuf *frame)
{
    struct iovec pieces[PIECES_MAX];
    int n = 0;
    (void)netif;
    for (struct pbuf *p = frame; p != NULL; p = p->next) {
        if (n == PIECES_MAX)
            return ERR_BUF;
        pieces[n].iov_base = p->payload;
        pieces[n++].iov_len = p->len;
    }
    return writev(tap_fd, pieces, n) < 0 ? ERR_IF : ERR_OK;
}

// The thread that reads. It holds the core's lock while lwIP works on a frame: that is what
// tcpip_input does too, where lwIP is built to do so, and it saves waking another thread.
static void *tap_read(void *unused)
{
    char bytes[FRAME_MAX + 4];
    (void)unused;
    for (;;) {
        ssize_t length = read(tap_fd, bytes, sizeof bytes);
        if (length < 0 && errno == EINTR)
            continue;
        if (length <= 0)
            fail("reading from the TAP: %s", strerror(errno));
        struct pbuf *frame = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);
        if (frame == NULL)
            continue;
        pbuf_take(frame, bytes, (u16_t)length);
        LOCK_TCPIP_CORE();
        if (ethernet_input(frame, &tap) != ERR_OK)
            pbuf_free(frame);
        UNLOCK_TCPIP_CORE();
    }
    return NULL;
}

static err_t tap_init(struct netif *netif)
{
    static const u8_t mac[ETH_HWADDR_LEN] = {0x02, 0, 0, 0, 0x6c, 0x77};
    memcpy(netif->hwaddr, mac, sizeof mac);
    netif->hwaddr_len = sizeof mac;
    netif->mtu = 1500;
    netif->name[0] = 't';
    netif->name[1] = 'p';
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    netif->output = etharp_output;
    netif->linkoutput = tap_linkoutput;
    return ERR_OK;
}

static int tap_open(const char *name)
{
    struct ifreq wanted = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fail("/dev/net/tun: %s", strerror(errno));
    if (strlen(name) >= sizeof wanted.ifr_name)
        fail("%s: too long a name for an interface", name);
    strcpy(wanted.ifr_name, name);
    if (ioctl(fd, TUNSETIFF, &wanted) < 0)
        fail("TAP %s: %s", name, strerror(errno));
    return fd;
}

void tap_up(const char *name, const char *address, const char *netmask)
{
    ip4_addr_t ours, mask;
    pthread_t reader;
    if (!ip4addr_aton(address, &ours) || !ip4addr_aton(netmask, &mask))
        fail("%s, %s: not an IPv4 address and a mask", address, netmask);
    tap_fd = tap_open(name);
    LOCK_TCPIP_CORE();
    if (netif_add(&tap, &ours, &mask, NULL, NULL, tap_init, tcpip_input) == NULL)
        fail("netif_add failed");
    netif_set_default(&tap);
    netif_set_link_up(&tap);
    netif_set_up(&tap);
    UNLOCK_TCPIP_CORE();
    if (pthread_create(&reader, NULL, tap_read, NULL) != 0)
        fail("cannot start a thread");
}
