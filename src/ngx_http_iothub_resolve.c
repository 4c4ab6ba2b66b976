
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_resolve.h"


#define NGX_HTTP_IOTHUB_RESOLVE_VALID_MIN  1         /* seconds */
#define NGX_HTTP_IOTHUB_RESOLVE_VALID_MAX  3600
#define NGX_HTTP_IOTHUB_RESOLVE_RETRY      1000      /* milliseconds */
#define NGX_HTTP_IOTHUB_RESOLVE_RETRY_MAX  30000
#define NGX_HTTP_IOTHUB_RESOLVE_KEEP       60        /* seconds */


/*
 * What an upstream's name led to: the peers of nginx's own round robin, all
 * in one pool.  A set is never changed.  A new one takes its place in the
 * upstream, and requests that began with the old one end with it: what they
 * log and where they keep TLS sessions stays true.
 */

typedef struct {
    ngx_queue_t                    queue;
    ngx_pool_t                    *pool;
    ngx_http_upstream_rr_peers_t   peers;
    time_t                         retired;
} ngx_http_iothub_resolve_set_t;


struct ngx_http_iothub_resolve_s {
    ngx_http_iothub_resolve_t     *next;

    ngx_http_iothub_hub_t         *hub;
    ngx_http_upstream_srv_conf_t  *upstream;
    ngx_str_t                      name;       /* its own: nginx writes here */
    ngx_str_t                      url;
    in_port_t                      port;
    u_char                        *file;       /* where the block ends */
    ngx_uint_t                     line;
    const char                    *error;      /* not found at the start */

    /* of a worker */

    ngx_event_t                    timer;
    ngx_resolver_ctx_t            *ctx;        /* of a query that runs */
    ngx_http_iothub_resolve_set_t *set;        /* NULL: as configured */
    ngx_queue_t                    retired;
    ngx_uint_t                     failures;   /* in a row */
    ngx_uint_t                     found;      /* unsigned  found:1; */
};


static void ngx_http_iothub_resolve_query(ngx_event_t *ev);
static void ngx_http_iothub_resolve_answer(ngx_resolver_ctx_t *ctx);
static void ngx_http_iothub_resolve_failed(ngx_http_iothub_resolve_t *rs,
    const char *reason);
static ngx_int_t ngx_http_iothub_resolve_take(ngx_http_iothub_resolve_t *rs,
    ngx_resolver_addr_t *addrs, ngx_uint_t naddrs);
static ngx_http_iothub_resolve_set_t *ngx_http_iothub_resolve_create(
    ngx_http_iothub_resolve_t *rs, ngx_resolver_addr_t *addrs,
    ngx_uint_t naddrs);
static ngx_int_t ngx_http_iothub_resolve_peer(ngx_http_iothub_resolve_t *rs,
    ngx_pool_t *pool, ngx_http_upstream_rr_peer_t *peer,
    ngx_resolver_addr_t *addr);
static ngx_uint_t ngx_http_iothub_resolve_same(
    ngx_http_upstream_rr_peers_t *one, ngx_http_upstream_rr_peers_t *other);
static ngx_uint_t ngx_http_iothub_resolve_has(
    ngx_http_upstream_rr_peers_t *peers, struct sockaddr *sockaddr,
    socklen_t socklen);
static void ngx_http_iothub_resolve_log(ngx_http_iothub_resolve_t *rs,
    ngx_http_iothub_resolve_set_t *set);
static void ngx_http_iothub_resolve_tidy(ngx_http_iothub_resolve_t *rs);
static void ngx_http_iothub_resolve_free(ngx_http_iothub_resolve_set_t *set);
static void ngx_http_iothub_resolve_cleanup(void *data);


ngx_int_t
ngx_http_iothub_resolve_add(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_http_upstream_srv_conf_t *uscf, ngx_url_t *u)
{
    struct sockaddr_in         *sin;
    ngx_http_iothub_resolve_t  *rs;

    rs = ngx_pcalloc(cf->pool, sizeof(ngx_http_iothub_resolve_t));
    if (rs == NULL) {
        return NGX_ERROR;
    }

    rs->name.len = u->host.len;
    rs->name.data = ngx_pstrdup(cf->pool, &u->host);
    if (rs->name.data == NULL) {
        return NGX_ERROR;
    }

    rs->hub = hub;
    rs->upstream = uscf;
    rs->url = u->url;
    rs->port = u->port;
    rs->file = cf->conf_file->file.name.data;
    rs->line = cf->conf_file->line;

    rs->next = hub->resolves;
    hub->resolves = rs;

    if (ngx_inet_resolve_host(cf->pool, u) == NGX_OK) {
        rs->found = 1;
        return NGX_OK;
    }

    if (u->err == NULL) {
        return NGX_ERROR;
    }

    rs->error = u->err;

    u->addrs = ngx_pcalloc(cf->pool, sizeof(ngx_addr_t));
    sin = ngx_pcalloc(cf->pool, sizeof(struct sockaddr_in));

    if (u->addrs == NULL || sin == NULL) {
        return NGX_ERROR;
    }

    sin->sin_family = AF_INET;

    u->addrs->sockaddr = (struct sockaddr *) sin;
    u->addrs->socklen = sizeof(struct sockaddr_in);
    u->addrs->name = u->url;
    u->naddrs = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_resolve_init(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_http_core_loc_conf_t   *clcf;
    ngx_http_iothub_resolve_t  *rs;

    clcf = hub->ctx->loc_conf[ngx_http_core_module.ctx_index];

    if (clcf->resolver->connections.nelts) {
        return NGX_OK;
    }

    for (rs = hub->resolves; rs; rs = rs->next) {

        if (!rs->found) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "%s in \"%V\" of hub \"%V\", and no \"resolver\" "
                          "is set that might find it later in %s:%ui",
                          rs->error, &rs->url, &hub->name, rs->file,
                          rs->line);
            return NGX_ERROR;
        }
    }

    hub->resolves = NULL;

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_resolve_init_worker(ngx_cycle_t *cycle, ngx_array_t *hubs)
{
    ngx_uint_t                  i;
    ngx_pool_cleanup_t         *cln;
    ngx_http_iothub_hub_t     **hub;
    ngx_http_iothub_resolve_t  *rs;

    if (ngx_process == NGX_PROCESS_HELPER) {
        return NGX_OK;
    }

    hub = hubs->elts;

    for (i = 0; i < hubs->nelts; i++) {

        for (rs = hub[i]->resolves; rs; rs = rs->next) {

            /* runs before the cleanup of the resolver, which is older */

            cln = ngx_pool_cleanup_add(cycle->pool, 0);
            if (cln == NULL) {
                return NGX_ERROR;
            }

            ngx_queue_init(&rs->retired);

            cln->handler = ngx_http_iothub_resolve_cleanup;
            cln->data = rs;

            rs->timer.handler = ngx_http_iothub_resolve_query;
            rs->timer.data = rs;
            rs->timer.log = cycle->log;
            rs->timer.cancelable = 1;

            ngx_add_timer(&rs->timer, 1);
        }
    }

    return NGX_OK;
}


static void
ngx_http_iothub_resolve_query(ngx_event_t *ev)
{
    ngx_resolver_ctx_t         *ctx;
    ngx_http_core_loc_conf_t   *clcf;
    ngx_http_iothub_resolve_t  *rs;

    rs = ev->data;

    ngx_http_iothub_resolve_tidy(rs);

    clcf = rs->hub->ctx->loc_conf[ngx_http_core_module.ctx_index];

    ctx = ngx_resolve_start(clcf->resolver, NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        ngx_http_iothub_resolve_failed(rs, "no memory");
        return;
    }

    ctx->name = rs->name;
    ctx->handler = ngx_http_iothub_resolve_answer;
    ctx->data = rs;
    ctx->timeout = clcf->resolver_timeout;
    ctx->cancelable = 1;

    /* the handler may be called from here, and resets this */

    rs->ctx = ctx;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        rs->ctx = NULL;
        ngx_http_iothub_resolve_failed(rs, "no memory");
    }
}


static void
ngx_http_iothub_resolve_answer(ngx_resolver_ctx_t *ctx)
{
    time_t                      valid;
    ngx_int_t                   rc;
    ngx_http_iothub_resolve_t  *rs;

    rs = ctx->data;
    rs->ctx = NULL;

    if (ctx->state) {
        ngx_http_iothub_resolve_failed(rs, ngx_resolver_strerror(ctx->state));
        ngx_resolve_name_done(ctx);
        return;
    }

    valid = ctx->valid - ngx_time();
    rc = ngx_http_iothub_resolve_take(rs, ctx->addrs, ctx->naddrs);

    ngx_resolve_name_done(ctx);

    if (rc != NGX_OK) {
        ngx_http_iothub_resolve_failed(rs, "no memory");
        return;
    }

    if (rs->failures) {
        ngx_log_error(NGX_LOG_INFO, rs->timer.log, 0,
                      "iothub hub \"%V\": \"%V\" is resolved again",
                      &rs->hub->name, &rs->name);
        rs->failures = 0;
    }

    valid = ngx_max(valid, NGX_HTTP_IOTHUB_RESOLVE_VALID_MIN);
    valid = ngx_min(valid, NGX_HTTP_IOTHUB_RESOLVE_VALID_MAX);

    ngx_add_timer(&rs->timer, (ngx_msec_t) valid * 1000);
}


/* the old addresses stay: hubs outlive name servers */

static void
ngx_http_iothub_resolve_failed(ngx_http_iothub_resolve_t *rs,
    const char *reason)
{
    ngx_msec_t  delay;

    if (rs->failures == 0) {

        if (rs->found) {
            ngx_log_error(NGX_LOG_WARN, rs->timer.log, 0,
                          "iothub hub \"%V\": \"%V\" could not be resolved "
                          "(%s), its last address stays in use",
                          &rs->hub->name, &rs->name, reason);
        } else {
            ngx_log_error(NGX_LOG_ERR, rs->timer.log, 0,
                          "iothub hub \"%V\": \"%V\" could not be resolved "
                          "(%s), the hub has no address",
                          &rs->hub->name, &rs->name, reason);
        }
    }

    /* 1, 2, 4, 8, 16, 30 seconds */

    delay = NGX_HTTP_IOTHUB_RESOLVE_RETRY << ngx_min(rs->failures, 5);
    delay = ngx_min(delay, NGX_HTTP_IOTHUB_RESOLVE_RETRY_MAX);

    rs->failures++;

    ngx_add_timer(&rs->timer, delay);
}


static ngx_int_t
ngx_http_iothub_resolve_take(ngx_http_iothub_resolve_t *rs,
    ngx_resolver_addr_t *addrs, ngx_uint_t naddrs)
{
    ngx_http_upstream_rr_peer_t    *peer;
    ngx_http_upstream_rr_peers_t   *old;
    ngx_http_iothub_resolve_set_t  *set;

    set = ngx_http_iothub_resolve_create(rs, addrs, naddrs);
    if (set == NULL) {
        return NGX_ERROR;
    }

    old = rs->upstream->peer.data;

    if (rs->found && ngx_http_iothub_resolve_same(old, &set->peers)) {
        ngx_http_iothub_resolve_free(set);
        return NGX_OK;
    }

    ngx_http_iothub_resolve_log(rs, set);

    /* a request that began with the old addresses makes no new connection */

    for (peer = old->peer; peer; peer = peer->next) {
        peer->down = 1;
    }

    if (rs->set) {
        rs->set->retired = ngx_time();
        ngx_queue_insert_tail(&rs->retired, &rs->set->queue);
    }

    rs->upstream->peer.data = &set->peers;
    rs->set = set;
    rs->found = 1;

    return NGX_OK;
}


/* as ngx_http_upstream_init_round_robin() makes them */

static ngx_http_iothub_resolve_set_t *
ngx_http_iothub_resolve_create(ngx_http_iothub_resolve_t *rs,
    ngx_resolver_addr_t *addrs, ngx_uint_t naddrs)
{
    ngx_uint_t                       i, n;
    ngx_pool_t                      *pool;
    ngx_http_upstream_rr_peer_t     *peer, **next;
    ngx_http_iothub_resolve_set_t   *set;

    pool = ngx_create_pool(NGX_MIN_POOL_SIZE + naddrs
                               * (sizeof(ngx_http_upstream_rr_peer_t)
                                  + sizeof(ngx_sockaddr_t)
                                  + NGX_SOCKADDR_STRLEN),
                           rs->timer.log);
    if (pool == NULL) {
        return NULL;
    }

    set = ngx_pcalloc(pool, sizeof(ngx_http_iothub_resolve_set_t));
    peer = ngx_pcalloc(pool, naddrs * sizeof(ngx_http_upstream_rr_peer_t));

    if (set == NULL || peer == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    set->pool = pool;
    next = &set->peers.peer;
    n = 0;

    for (i = 0; i < naddrs; i++) {

        if (ngx_http_iothub_resolve_peer(rs, pool, &peer[n], &addrs[i])
            != NGX_OK)
        {
            ngx_destroy_pool(pool);
            return NULL;
        }

        if (ngx_http_iothub_resolve_has(&set->peers, peer[n].sockaddr,
                                        peer[n].socklen))
        {
            continue;
        }

        *next = &peer[n];
        next = &peer[n].next;
        n++;
    }

    set->peers.number = n;
    set->peers.total_weight = n;
    set->peers.tries = n;
    set->peers.single = (n == 1);
    set->peers.name = &rs->upstream->host;

    return set;
}


static ngx_int_t
ngx_http_iothub_resolve_peer(ngx_http_iothub_resolve_t *rs, ngx_pool_t *pool,
    ngx_http_upstream_rr_peer_t *peer, ngx_resolver_addr_t *addr)
{
    peer->socklen = addr->socklen;
    peer->sockaddr = ngx_palloc(pool, addr->socklen);
    peer->name.data = ngx_pnalloc(pool, NGX_SOCKADDR_STRLEN);

    if (peer->sockaddr == NULL || peer->name.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(peer->sockaddr, addr->sockaddr, addr->socklen);
    ngx_inet_set_port(peer->sockaddr, rs->port);

    peer->name.len = ngx_sock_ntop(peer->sockaddr, peer->socklen,
                                   peer->name.data, NGX_SOCKADDR_STRLEN, 1);

    /* max_fails 0: a fault never takes an address of the hub out of use */

    peer->server = rs->url;
    peer->weight = 1;
    peer->effective_weight = 1;
    peer->fail_timeout = 10;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_iothub_resolve_same(ngx_http_upstream_rr_peers_t *one,
    ngx_http_upstream_rr_peers_t *other)
{
    ngx_http_upstream_rr_peer_t  *peer;

    if (one->number != other->number) {
        return 0;
    }

    for (peer = one->peer; peer; peer = peer->next) {
        if (!ngx_http_iothub_resolve_has(other, peer->sockaddr,
                                         peer->socklen))
        {
            return 0;
        }
    }

    return 1;
}


static ngx_uint_t
ngx_http_iothub_resolve_has(ngx_http_upstream_rr_peers_t *peers,
    struct sockaddr *sockaddr, socklen_t socklen)
{
    ngx_http_upstream_rr_peer_t  *peer;

    for (peer = peers->peer; peer; peer = peer->next) {
        if (ngx_cmp_sockaddr(peer->sockaddr, peer->socklen, sockaddr, socklen,
                             1)
            == NGX_OK)
        {
            return 1;
        }
    }

    return 0;
}


static void
ngx_http_iothub_resolve_log(ngx_http_iothub_resolve_t *rs,
    ngx_http_iothub_resolve_set_t *set)
{
    u_char                       *p, *list;
    ngx_http_upstream_rr_peer_t  *peer;

    list = ngx_pnalloc(set->pool, set->peers.number
                                  * (NGX_SOCKADDR_STRLEN + sizeof(", ") - 1));
    if (list == NULL) {
        return;
    }

    p = list;

    for (peer = set->peers.peer; peer; peer = peer->next) {
        p = ngx_sprintf(p, "%s%V", p == list ? "" : ", ", &peer->name);
    }

    ngx_log_error(NGX_LOG_NOTICE, rs->timer.log, 0,
                  "iothub hub \"%V\": address of \"%V\" is now %*s",
                  &rs->hub->name, &rs->name, (size_t) (p - list), list);
}


/*
 * A set is out of use when no request holds a connection of its peers.  The
 * log context of an exchange that has just ended may still name one of them:
 * its memory stays for a minute longer.
 */

static void
ngx_http_iothub_resolve_tidy(ngx_http_iothub_resolve_t *rs)
{
    ngx_queue_t                    *q, *next;
    ngx_http_upstream_rr_peer_t    *peer;
    ngx_http_iothub_resolve_set_t  *set;

    for (q = ngx_queue_head(&rs->retired);
         q != ngx_queue_sentinel(&rs->retired);
         q = next)
    {
        next = ngx_queue_next(q);
        set = ngx_queue_data(q, ngx_http_iothub_resolve_set_t, queue);

        if (ngx_time() - set->retired < NGX_HTTP_IOTHUB_RESOLVE_KEEP) {
            return;
        }

        for (peer = set->peers.peer; peer; peer = peer->next) {
            if (peer->conns) {
                break;
            }
        }

        if (peer == NULL) {
            ngx_queue_remove(q);
            ngx_http_iothub_resolve_free(set);
        }
    }
}


static void
ngx_http_iothub_resolve_free(ngx_http_iothub_resolve_set_t *set)
{
    ngx_http_upstream_rr_peer_t  *peer;

    for (peer = set->peers.peer; peer; peer = peer->next) {
        if (peer->ssl_session) {
            ngx_ssl_free_session(peer->ssl_session);
        }
    }

    ngx_destroy_pool(set->pool);
}


/* the worker ends, or without a master process, the configuration does */

static void
ngx_http_iothub_resolve_cleanup(void *data)
{
    ngx_http_iothub_resolve_t *rs = data;

    ngx_queue_t  *q;

    if (rs->timer.timer_set) {
        ngx_del_timer(&rs->timer);
    }

    if (rs->ctx) {
        ngx_resolve_name_done(rs->ctx);
    }

    while (!ngx_queue_empty(&rs->retired)) {
        q = ngx_queue_head(&rs->retired);
        ngx_queue_remove(q);

        ngx_http_iothub_resolve_free(
                 ngx_queue_data(q, ngx_http_iothub_resolve_set_t, queue));
    }

    if (rs->set) {
        ngx_http_iothub_resolve_free(rs->set);
    }
}
