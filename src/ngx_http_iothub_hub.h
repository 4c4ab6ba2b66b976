
/* Copyright (C) the ngx_http_iothub_module authors */

/*
 * hub: the iothub{} block.  Its own directives are read here; nginx's own
 * are handed to the server room, the shared memory is the zone room's.
 */

#ifndef _NGX_HTTP_IOTHUB_HUB_H_INCLUDED_
#define _NGX_HTTP_IOTHUB_HUB_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_iothub_keys.h"
#include "ngx_http_iothub_metrics.h"


/* the two endpoints of a hub; they are one where no device_hostname is set */

typedef enum {
    NGX_HTTP_IOTHUB_REGISTRY = 0,
    NGX_HTTP_IOTHUB_MESSAGES,
    NGX_HTTP_IOTHUB_ENDPOINTS
} ngx_http_iothub_endpoint_e;


/*
 * The proxy configurations: they differ in how long an answer is waited for.
 * The registry may think for 40 s, but in "register first" it must not keep
 * a message of an existing device from being sent.
 */

typedef enum {
    NGX_HTTP_IOTHUB_PROXY_MESSAGES = 0,
    NGX_HTTP_IOTHUB_PROXY_REGISTRY,
    NGX_HTTP_IOTHUB_PROXY_FIRST,
    NGX_HTTP_IOTHUB_PROXIES
} ngx_http_iothub_proxy_e;


typedef enum {
    NGX_HTTP_IOTHUB_REGISTER_MISSING = 0,
    NGX_HTTP_IOTHUB_REGISTER_FIRST,
    NGX_HTTP_IOTHUB_REGISTER_OFF
} ngx_http_iothub_register_e;


/* a token as a worker keeps it; signed anew at renew, in seconds */

typedef struct {
    ngx_str_t                       value;
    u_char                         *buf;
    size_t                          size;
    time_t                          signed_at;
    time_t                          renew;
} ngx_http_iothub_token_cache_t;


typedef struct {
    ngx_str_t                       name;      /* without the port */
    ngx_str_t                       host;      /* as in the Host header */
    in_port_t                       port;      /* 0: the default */
    ngx_str_t                       sr;        /* name, escaped */

    /* one for each key; endpoints of one name share them */

    ngx_http_iothub_token_cache_t  *tokens;
} ngx_http_iothub_endpoint_t;


typedef struct ngx_http_iothub_shm_s  ngx_http_iothub_shm_t;
typedef struct ngx_http_iothub_resolve_s  ngx_http_iothub_resolve_t;


typedef struct {
    ngx_str_t                       name;
    u_char                         *file;      /* where it is declared */
    ngx_uint_t                      line;

    ngx_http_iothub_endpoint_t      registry;
    ngx_http_iothub_endpoint_t      messages;
    ngx_str_t                       address;
    ngx_flag_t                      tls;

    ngx_str_t                       policy;
    ngx_str_t                       key_file;
    ngx_str_t                       connection_string_file;
    ngx_str_t                       keys[NGX_HTTP_IOTHUB_KEYS];
    uint64_t                        fingerprints[NGX_HTTP_IOTHUB_KEYS];
    ngx_uint_t                      nkeys;

    time_t                          token_lifetime;   /* seconds */
    ngx_uint_t                      token_scope_device;
    ngx_str_t                       api_version;
    ngx_str_t                       query;     /* "?api-version=..." */

    ngx_uint_t                      registering;
    ngx_uint_t                      rate;      /* 1/1000 per second; 0: off */
    ngx_uint_t                      burst;
    ngx_str_t                       identity;  /* members, after deviceId */

    size_t                          zone_size;
    ngx_str_t                       state_file;
    ngx_shm_zone_t                 *shm_zone;
    ngx_http_iothub_shm_t          *shm;
    ngx_core_conf_t                *ccf;

    ngx_http_iothub_metrics_counts_t  *counts;   /* this worker's */
    ngx_uint_t                      sources;   /* of its webhooks: bits */

    /* the generated server, see the server room */

    ngx_http_conf_ctx_t            *ctx;
    void                           *proxy_defaults[NGX_HTTP_IOTHUB_PROXIES];
    void                           *proxy[NGX_HTTP_IOTHUB_PROXIES];
    void                          **loc_conf[NGX_HTTP_IOTHUB_PROXIES];
    ngx_http_handler_pt             proxy_handler;
    ngx_array_t                     keepalive;

    ngx_flag_t                      verify;    /* proxy_ssl_verify */
    ngx_http_iothub_resolve_t      *resolves;  /* names of its upstreams */

    /* deliveries of this worker that wait for another's creation */

    ngx_queue_t                     waiting;

    ngx_event_t                     sweep;     /* tidies the cache */
} ngx_http_iothub_hub_t;


#define ngx_http_iothub_hub_endpoint(hub, which)                             \
    ((which) == NGX_HTTP_IOTHUB_REGISTRY ? &(hub)->registry                  \
                                         : &(hub)->messages)


/*
 * The iothub NAME { } directive of http{}: conf is the module's main
 * configuration.  Returns NGX_CONF_OK or NGX_CONF_ERROR, all said.
 */

char *ngx_http_iothub_hub_block(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* May this be the name of a hub?  1 or 0. */

ngx_uint_t ngx_http_iothub_hub_name_valid(ngx_str_t *name);

/* Completes all hubs when http{} has been read and merged. */

ngx_int_t ngx_http_iothub_hub_init(ngx_conf_t *cf, ngx_array_t *hubs);

/* Finds a hub by its exact name; NULL if there is none. */

ngx_http_iothub_hub_t *ngx_http_iothub_hub_find(ngx_array_t *hubs,
    ngx_str_t *name);


#endif /* _NGX_HTTP_IOTHUB_HUB_H_INCLUDED_ */
