
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * server: the generated server of a hub.  Traffic to the hub runs through
 * nginx's own proxy, on a server that listens nowhere and upstreams of its
 * own, so that nothing set in http{} or by the user's servers changes it.
 *
 * The equivalent plain configuration is in the README.
 */

#ifndef _NGX_HTTP_IOTHUB_SERVER_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_SERVER_H_INCLUDED_


#include "ngx_http_iothub_hub.h"


/* Makes the server and the proxy configurations, when a block begins. */

ngx_int_t ngx_http_iothub_server_create(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);

/*
 * Takes a directive of nginx's own, cf->args, that stands in the block.
 * NGX_OK; NGX_DECLINED if it is none of those that are allowed there;
 * NGX_ERROR, logged.
 */

ngx_int_t ngx_http_iothub_server_directive(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);

/*
 * Makes the upstreams and completes the proxy configurations, when the block
 * ends and its endpoints are known.
 */

ngx_int_t ngx_http_iothub_server_complete(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);

/* Takes what http{} made of the server, in postconfiguration. */

ngx_int_t ngx_http_iothub_server_init(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);


#endif /* _NGX_HTTP_IOTHUB_SERVER_H_INCLUDED_ */
