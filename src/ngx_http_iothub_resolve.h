
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * resolve: the addresses of a hub's upstreams.  A name is looked up at the
 * start, and where a resolver applies again and again by each worker, as
 * long as its answers are valid.
 */

#ifndef _NGX_HTTP_IOTHUB_RESOLVE_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_RESOLVE_H_INCLUDED_


#include "ngx_http_iothub_hub.h"


/*
 * Looks up the name in u, which ngx_parse_url() left without addresses, for
 * the upstream uscf of the hub, and fills u->addrs.  A name that is not found
 * is no error yet: u->err tells why, and u->addrs holds one address that is
 * to be marked down.  NGX_ERROR: no memory.
 */

ngx_int_t ngx_http_iothub_resolve_add(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_http_upstream_srv_conf_t *uscf,
    ngx_url_t *u);

/*
 * Sees, when http{} has been read and merged, whether a resolver applies to
 * the hub.  Without one the addresses of the start stay, and NGX_ERROR,
 * logged, says that there are none.
 */

ngx_int_t ngx_http_iothub_resolve_init(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);

/*
 * Starts resolving in a worker, for as long as the cycle's pool lives.
 * NGX_ERROR: no memory.
 */

ngx_int_t ngx_http_iothub_resolve_init_worker(ngx_cycle_t *cycle,
    ngx_array_t *hubs);


#endif /* _NGX_HTTP_IOTHUB_RESOLVE_H_INCLUDED_ */
