
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * hub_identity: the directive "identity", what a hub's new identities are
 * created with.
 */

#ifndef _NGX_HTTP_IOTHUB_HUB_IDENTITY_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_HUB_IDENTITY_H_INCLUDED_


#include "ngx_http_iothub_hub.h"


/* what is so where nothing is written: keys, which the hub makes */

extern ngx_str_t  ngx_http_iothub_hub_default_auth;


/*
 * Reads the directive.  Returns NGX_CONF_OK, what is wrong with it, or
 * NGX_CONF_ERROR.
 */

char *ngx_http_iothub_hub_identity(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);


#endif /* _NGX_HTTP_IOTHUB_HUB_IDENTITY_H_INCLUDED_ */
