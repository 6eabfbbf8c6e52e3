// SPDX-License-Identifier: MIT
//
// The rounds that lwIP serves, by its sockets. agent.py says what they are.

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lwip/sockets.h>

#include "driver.h"

// The sizes of agent.py.
enum { CHUNK = 1 << 20, REQUEST = 64, DATAGRAM = 64, WINDOW = 128, LAST_REQUEST = 'Q' };
static const uint32_t FIN = 0xFFFFFFFF;

static char room[CHUNK];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct result failed(const char *why)
{
    return (struct result){.error = why};
}

static int bound(int type, uint16_t port)
{
    struct sockaddr_in ours = {.sin_family = AF_INET, .sin_port = htons(port)};
    int sock = lwip_socket(AF_INET, type, 0);
    if (sock < 0)
        return -1;
    if (lwip_bind(sock, (struct sockaddr *)&ours, sizeof ours) < 0
        || (type == SOCK_STREAM && lwip_listen(sock, 128) < 0)) {
        lwip_close(sock);
        return -1;
    }
    ready();
    return sock;
}

static int accept_one(uint16_t port)
{
    const int one = 1;
    int listener = bound(SOCK_STREAM, port);
    if (listener < 0)
        return -1;
    int sock = lwip_accept(listener, NULL, NULL);
    lwip_close(listener);
    if (sock >= 0)
        lwip_setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return sock;
}

static struct result serve_sink(const struct order *given)
{
    struct result found = {0};
    ssize_t n;
    int sock = accept_one(given->port);
    if (sock < 0)
        return failed("cannot accept a connection");
    double start = now();
    while ((n = lwip_recv(sock, room, sizeof room, 0)) > 0)
        found.bytes += (uint64_t)n;
    found.seconds = now() - start;
    if (n < 0)
        found.error = "recv failed";
    lwip_close(sock);
    return found;
}

static struct result serve_source(const struct order *given)
{
    struct result found = {0};
    int sock = accept_one(given->port);
    if (sock < 0)
        return failed("cannot accept a connection");
    double start = now();
    while (found.error == NULL && now() - start < given->seconds) {
        ssize_t n = lwip_send(sock, room, sizeof room, 0);
        if (n < 0)
            found.error = "send failed";
        else
            found.bytes += (uint64_t)n;
    }
    lwip_shutdown(sock, SHUT_WR);
    if (found.error == NULL && lwip_recv(sock, room, 1, 0) != 0)
        found.error = "the receiver of a bulk round sent data";
    found.seconds = now() - start;
    lwip_close(sock);
    return found;
}

static struct result serve_echo(const struct order *given)
{
    struct result found = {0};
    int sock = accept_one(given->port);
    if (sock < 0)
        return failed("cannot accept a connection");
    for (; found.error == NULL && lwip_recv(sock, room, 1, 0) == 1; found.bytes++)
        if (lwip_send(sock, room, 1, 0) != 1)
            found.error = "send failed";
    lwip_close(sock);
    return found;
}

// Answer the request of one connection. NULL, or why that failed.
static const char *answer_one(int sock, int *last)
{
    char asked[REQUEST];
    const char answer[REQUEST] = {0};
    ssize_t n;
    for (size_t got = 0; got < sizeof asked; got += (size_t)n)
        if ((n = lwip_recv(sock, asked + got, sizeof asked - got, 0)) <= 0)
            return "closed in the middle of a request";
    *last = asked[0] == LAST_REQUEST;
    if (lwip_send(sock, answer, sizeof answer, 0) != (ssize_t)sizeof answer)
        return "send failed";
    if (lwip_recv(sock, asked, 1, 0) != 0)
        return "more than one request on a connection";
    return NULL;
}

static struct result serve_connections(const struct order *given)
{
    struct result found = {0};
    int last = 0;
    int listener = bound(SOCK_STREAM, given->port);
    if (listener < 0)
        return failed("cannot listen");
    while (!last && found.error == NULL) {
        int sock = lwip_accept(listener, NULL, NULL);
        if (sock < 0) {
            found.error = "accept failed";
            break;
        }
        found.error = answer_one(sock, &last);
        found.bytes++;
        lwip_close(sock);
    }
    lwip_close(listener);
    return found;
}

// A socket that is connected to the first who says something.
static int datagram_peer(uint16_t port)
{
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    int sock = bound(SOCK_DGRAM, port);
    if (sock < 0)
        return -1;
    if (lwip_recvfrom(sock, room, DATAGRAM, 0, (struct sockaddr *)&peer, &length) < 0
        || lwip_connect(sock, (struct sockaddr *)&peer, length) < 0) {
        lwip_close(sock);
        return -1;
    }
    return sock;
}

static uint32_t number(void)
{
    uint32_t n;
    memcpy(&n, room, sizeof n);
    return ntohl(n);
}

static struct result serve_datagram_sink(const struct order *given)
{
    struct result found = {0};
    double start = 0, last = 0;
    int sock = datagram_peer(given->port);
    if (sock < 0)
        return failed("cannot serve datagrams");
    lwip_send(sock, "hello", 5, 0);
    for (;;) {
        ssize_t n = lwip_recv(sock, room, DATAGRAM, 0);
        if (n < 0) {
            found.error = "recv failed";
            break;
        }
        if (n >= 4 && number() == FIN) {
            for (int i = 0; i < 3; i++)
                lwip_send(sock, room, (size_t)n, 0);
            break;
        }
        if (found.bytes == 0)
            start = now();
        if (++found.bytes % (WINDOW / 4) == 0) {
            uint32_t so_far = htonl((uint32_t)found.bytes);
            last = now();
            lwip_send(sock, &so_far, sizeof so_far, 0);
        }
    }
    found.seconds = last - start;
    lwip_close(sock);
    return found;
}

// The number that the peer answers within some time; -1 where it does not.
static int64_t answer_within(int sock, int milliseconds)
{
    struct pollfd wanted = {.fd = sock, .events = POLLIN};
    if (lwip_poll(&wanted, 1, milliseconds) <= 0)
        return -1;
    return lwip_recv(sock, room, DATAGRAM, 0) >= 4 ? (int64_t)number() : 0;
}

static struct result serve_datagram_source(const struct order *given)
{
    struct result found = {0};
    char data[DATAGRAM] = {0};
    uint32_t sent = 0, acked = 0, line;
    int sock = datagram_peer(given->port);
    if (sock < 0)
        return failed("cannot serve datagrams");
    double start = now();
    while (now() - start < given->seconds) {
        for (; sent - acked < WINDOW; sent++) {
            line = htonl(sent);
            memcpy(data, &line, sizeof line);
            lwip_send(sock, data, sizeof data, 0);
        }
        int64_t answer = answer_within(sock, 50);
        if (answer < 0)
            acked = sent;
        else if (answer > acked)
            acked = (uint32_t)answer;
    }
    found.seconds = now() - start;
    found.bytes = sent;
    memcpy(data, &FIN, sizeof FIN);
    for (int i = 0; i < 20; i++) {
        int64_t answer;
        lwip_send(sock, data, sizeof data, 0);
        while ((answer = answer_within(sock, 100)) >= 0 && answer != FIN)
            ;
        if (answer == FIN)
            break;
    }
    lwip_close(sock);
    return found;
}

struct result obey(const struct order *given)
{
    static const struct {
        const char *op;
        struct result (*serve)(const struct order *);
    } rounds[] = {
        {"serve_sink", serve_sink},
        {"serve_source", serve_source},
        {"serve_echo", serve_echo},
        {"serve_connections", serve_connections},
        {"serve_datagram_sink", serve_datagram_sink},
        {"serve_datagram_source", serve_datagram_source},
    };
    for (size_t i = 0; i < sizeof rounds / sizeof *rounds; i++)
        if (strcmp(given->op, rounds[i].op) == 0)
            return rounds[i].serve(given);
    return failed("no such order");
}
