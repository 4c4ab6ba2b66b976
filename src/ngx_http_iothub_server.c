
/* Copyright (C) the ngx_http_iothub_module authors */

#include "ngx_http_iothub_server.h"
#include "ngx_http_iothub_directive.h"
#include "ngx_http_iothub_resolve.h"


#if !(NGX_HTTP_SSL)
#error "ngx_http_iothub_module needs nginx with --with-http_ssl_module"
#endif


/* no name that a user gives to an upstream of his own */

#define NGX_HTTP_IOTHUB_UPSTREAM_SUFFIX  ".iothub.invalid"


/* a kept directive of the block, for the upstreams that are made at its end */

typedef struct {
    ngx_array_t   *args;
    ngx_str_t      file;
    ngx_uint_t     line;
} ngx_http_iothub_kept_t;


static ngx_int_t ngx_http_iothub_server_keep(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub);
static ngx_int_t ngx_http_iothub_server_proxy(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_uint_t messages_only);
static ngx_int_t ngx_http_iothub_server_set(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_module_t *module, void *conf);
static ngx_int_t ngx_http_iothub_server_set_all(ngx_conf_t *cf, void *conf,
    const char *const (*lines)[8]);
static ngx_int_t ngx_http_iothub_server_endpoint(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_uint_t which, ngx_str_t *upstream);
static ngx_int_t ngx_http_iothub_server_pass(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_uint_t which, ngx_str_t *upstream);
static ngx_int_t ngx_http_iothub_server_tls(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_uint_t which);
static const char *ngx_http_iothub_server_ca_bundle(void);
static ngx_http_upstream_srv_conf_t *ngx_http_iothub_server_upstream(
    ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_endpoint_t *endpoint, ngx_str_t *name);
static ngx_int_t ngx_http_iothub_server_address(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_http_iothub_endpoint_t *endpoint,
    ngx_http_upstream_srv_conf_t *uscf);
static ngx_uint_t ngx_http_iothub_server_loopback(ngx_url_t *u);
static ngx_int_t ngx_http_iothub_server_keepalive(ngx_conf_t *cf,
    ngx_http_iothub_hub_t *hub, ngx_http_conf_ctx_t *ctx);
static ngx_http_conf_ctx_t *ngx_http_iothub_server_ctx(ngx_conf_t *cf);


extern ngx_module_t  ngx_http_proxy_module;
extern ngx_module_t  ngx_http_upstream_keepalive_module;


typedef enum {
    NGX_HTTP_IOTHUB_SERVER_PROXY = 0,
    NGX_HTTP_IOTHUB_SERVER_MESSAGES,
    NGX_HTTP_IOTHUB_SERVER_KEEPALIVE,
    NGX_HTTP_IOTHUB_SERVER_CORE
} ngx_http_iothub_server_e;


/* what of nginx's own is allowed in the block, and where it acts */

static const struct {
    ngx_str_t                 name;
    ngx_http_iothub_server_e  where;
} ngx_http_iothub_server_directives[] = {

    { ngx_string("proxy_bind"), NGX_HTTP_IOTHUB_SERVER_PROXY },
    { ngx_string("proxy_connect_timeout"), NGX_HTTP_IOTHUB_SERVER_PROXY },
    { ngx_string("proxy_send_timeout"), NGX_HTTP_IOTHUB_SERVER_PROXY },
    { ngx_string("proxy_read_timeout"), NGX_HTTP_IOTHUB_SERVER_MESSAGES },
    { ngx_string("proxy_socket_keepalive"), NGX_HTTP_IOTHUB_SERVER_PROXY },
    { ngx_string("proxy_buffer_size"), NGX_HTTP_IOTHUB_SERVER_PROXY },
    { ngx_string("proxy_buffers"), NGX_HTTP_IOTHUB_SERVER_PROXY },

    { ngx_string("keepalive"), NGX_HTTP_IOTHUB_SERVER_KEEPALIVE },
    { ngx_string("keepalive_requests"), NGX_HTTP_IOTHUB_SERVER_KEEPALIVE },
    { ngx_string("keepalive_time"), NGX_HTTP_IOTHUB_SERVER_KEEPALIVE },
    { ngx_string("keepalive_timeout"), NGX_HTTP_IOTHUB_SERVER_KEEPALIVE },

    { ngx_string("resolver"), NGX_HTTP_IOTHUB_SERVER_CORE },
    { ngx_string("resolver_timeout"), NGX_HTTP_IOTHUB_SERVER_CORE },

    { ngx_null_string, 0 }
};


/* defaults of what the user may set: the private parent of the proxies */

static const char *const ngx_http_iothub_server_defaults[][8] = {
    { "proxy_connect_timeout", "3s", NULL },
    { "proxy_ssl_verify", "on", NULL },
    { "proxy_ssl_verify_depth", "4", NULL },
    { "proxy_ssl_protocols", "TLSv1.2", "TLSv1.3", NULL },
    { NULL }
};


/* indexed by ngx_http_iothub_proxy_e */

static const struct {
    ngx_http_iothub_endpoint_e   endpoint;
    const char                  *read_timeout[3];
} ngx_http_iothub_server_proxies[] = {
    { NGX_HTTP_IOTHUB_MESSAGES, { "proxy_read_timeout", "5s", NULL } },
    { NGX_HTTP_IOTHUB_REGISTRY, { "proxy_read_timeout", "60s", NULL } },
    { NGX_HTTP_IOTHUB_REGISTRY, { "proxy_read_timeout", "2s", NULL } }
};


/*
 * What an exchange needs and nobody may change.  An answer is consumed as it
 * comes: with buffering, the filters would see none of it before its end.
 * A message on a kept-alive connection that turns out to be dead is repeated
 * by nginx itself, until a fresh one: at-least-once, and the message id is
 * the same.
 */

static const char *const ngx_http_iothub_server_fixed[][8] = {
    { "proxy_http_version", "1.1", NULL },
    { "proxy_set_header", "Connection", "", NULL },
    { "proxy_buffering", "off", NULL },
    { "proxy_request_buffering", "on", NULL },
    { "proxy_ignore_client_abort", "on", NULL },
    { "proxy_intercept_errors", "off", NULL },
    { "proxy_redirect", "off", NULL },
    { "proxy_next_upstream", "error", "non_idempotent", NULL },
    { "proxy_ignore_headers", "X-Accel-Redirect", "X-Accel-Expires",
      "X-Accel-Limit-Rate", "X-Accel-Buffering", "X-Accel-Charset", NULL },
    { NULL }
};


/*
 * Defaults of the connections kept alive, where the block says nothing.
 * Their age is bounded: nginx's bound of 1000 requests would only make a busy
 * gateway shake hands every second.
 */

static const char *const ngx_http_iothub_server_kept[][8] = {
    { "keepalive", "64", NULL },
    { "keepalive_requests", "100000", NULL },
    { "keepalive_time", "300s", NULL },
    { "keepalive_timeout", "60s", NULL },
    { NULL }
};


static const char *const ngx_http_iothub_server_ca_bundles[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    NULL
};


/* never used: nginx's own is taken once http{} has been merged */

static ngx_path_t  ngx_http_iothub_server_no_path;


ngx_int_t
ngx_http_iothub_server_create(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_uint_t                   i;
    ngx_http_module_t           *module;
    ngx_http_core_loc_conf_t    *clcf;
    ngx_http_core_srv_conf_t    *cscf, **cscfp;
    ngx_http_core_main_conf_t   *cmcf;

    if (ngx_array_init(&hub->keepalive, cf->pool, 4,
                       sizeof(ngx_http_iothub_kept_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    hub->ctx = ngx_http_iothub_server_ctx(cf);
    if (hub->ctx == NULL) {
        return NGX_ERROR;
    }

    /* in the list of servers it is merged; without a listen it stays mute */

    cscf = hub->ctx->srv_conf[ngx_http_core_module.ctx_index];
    cscf->ctx = hub->ctx;

    cmcf = hub->ctx->main_conf[ngx_http_core_module.ctx_index];

    cscfp = ngx_array_push(&cmcf->servers);
    if (cscfp == NULL) {
        return NGX_ERROR;
    }

    *cscfp = cscf;

    clcf = hub->ctx->loc_conf[ngx_http_core_module.ctx_index];
    clcf->log_subrequest = 0;

    module = ngx_http_proxy_module.ctx;

    for (i = 0; i < NGX_HTTP_IOTHUB_PROXIES; i++) {
        hub->proxy_defaults[i] = module->create_loc_conf(cf);
        hub->proxy[i] = module->create_loc_conf(cf);

        if (hub->proxy_defaults[i] == NULL || hub->proxy[i] == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_http_conf_ctx_t *
ngx_http_iothub_server_ctx(ngx_conf_t *cf)
{
    void                 *conf;
    ngx_uint_t            m, i;
    ngx_http_module_t    *module;
    ngx_http_conf_ctx_t  *ctx, *http_ctx;

    ctx = ngx_pcalloc(cf->pool, sizeof(ngx_http_conf_ctx_t));
    if (ctx == NULL) {
        return NULL;
    }

    http_ctx = cf->ctx;
    ctx->main_conf = http_ctx->main_conf;

    ctx->srv_conf = ngx_pcalloc(cf->pool, sizeof(void *) * ngx_http_max_module);
    ctx->loc_conf = ngx_pcalloc(cf->pool, sizeof(void *) * ngx_http_max_module);

    if (ctx->srv_conf == NULL || ctx->loc_conf == NULL) {
        return NULL;
    }

    for (m = 0; cf->cycle->modules[m]; m++) {

        if (cf->cycle->modules[m]->type != NGX_HTTP_MODULE) {
            continue;
        }

        module = cf->cycle->modules[m]->ctx;
        i = cf->cycle->modules[m]->ctx_index;

        if (module->create_srv_conf) {
            conf = module->create_srv_conf(cf);
            if (conf == NULL) {
                return NULL;
            }

            ctx->srv_conf[i] = conf;
        }

        if (module->create_loc_conf) {
            conf = module->create_loc_conf(cf);
            if (conf == NULL) {
                return NULL;
            }

            ctx->loc_conf[i] = conf;
        }
    }

    return ctx;
}


ngx_int_t
ngx_http_iothub_server_directive(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_str_t   *value;
    ngx_uint_t   i;

    value = cf->args->elts;

    for (i = 0; ngx_http_iothub_server_directives[i].name.len; i++) {

        if (value[0].len != ngx_http_iothub_server_directives[i].name.len
            || ngx_strncmp(value[0].data,
                           ngx_http_iothub_server_directives[i].name.data,
                           value[0].len)
               != 0)
        {
            continue;
        }

        switch (ngx_http_iothub_server_directives[i].where) {

        case NGX_HTTP_IOTHUB_SERVER_KEEPALIVE:
            return ngx_http_iothub_server_keep(cf, hub);

        case NGX_HTTP_IOTHUB_SERVER_CORE:
            return ngx_http_iothub_server_set(cf, hub, &ngx_http_core_module,
                       hub->ctx->loc_conf[ngx_http_core_module.ctx_index]);

        case NGX_HTTP_IOTHUB_SERVER_MESSAGES:
            return ngx_http_iothub_server_proxy(cf, hub, 1);

        default: /* NGX_HTTP_IOTHUB_SERVER_PROXY */
            return ngx_http_iothub_server_proxy(cf, hub, 0);
        }
    }

    if (value[0].len > 10
        && ngx_strncmp(value[0].data, "proxy_ssl_", 10) == 0)
    {
        return ngx_http_iothub_server_proxy(cf, hub, 0);
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_iothub_server_keep(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_str_t               *value, *copy;
    ngx_uint_t               i;
    ngx_http_iothub_kept_t  *kept;

    kept = ngx_array_push(&hub->keepalive);
    if (kept == NULL) {
        return NGX_ERROR;
    }

    kept->file = cf->conf_file->file.name;
    kept->line = cf->conf_file->line;
    kept->args = ngx_array_create(cf->pool, cf->args->nelts,
                                  sizeof(ngx_str_t));
    if (kept->args == NULL) {
        return NGX_ERROR;
    }

    /* the words themselves stay where they are, in cf->pool */

    value = cf->args->elts;

    for (i = 0; i < cf->args->nelts; i++) {
        copy = ngx_array_push(kept->args);
        if (copy == NULL) {
            return NGX_ERROR;
        }

        *copy = value[i];
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_server_proxy(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_uint_t messages_only)
{
    ngx_int_t    rc;
    ngx_str_t   *value, saved[NGX_CONF_MAX_ARGS + 1];
    ngx_uint_t   i, n;

    value = cf->args->elts;
    n = ngx_min(cf->args->nelts, NGX_CONF_MAX_ARGS + 1);

    if (ngx_strcmp(value[0].data, "proxy_ssl_name") == 0
        || ngx_strcmp(value[0].data, "proxy_ssl_server_name") == 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is not allowed in iothub{}: the hub's "
                           "\"hostname\" is what is sent and verified",
                           &value[0]);
        return NGX_ERROR;
    }

    if (ngx_strcmp(value[0].data, "proxy_ssl_verify") == 0 && n == 2) {

        hub->verify = ngx_strcasecmp(value[1].data, (u_char *) "off") != 0;

        if (!hub->verify) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"proxy_ssl_verify off\" in iothub{}: "
                               "whoever answers in the hub's place gets its "
                               "tokens and messages");
        }
    }

    /* a setter may change the words it is given */

    for (i = 0; i < n; i++) {
        saved[i] = value[i];
    }

    for (i = 0; i < NGX_HTTP_IOTHUB_PROXIES; i++) {

        if (messages_only && i != NGX_HTTP_IOTHUB_PROXY_MESSAGES) {
            continue;
        }

        ngx_memcpy(value, saved, n * sizeof(ngx_str_t));

        rc = ngx_http_iothub_server_set(cf, hub, &ngx_http_proxy_module,
                                        hub->proxy[i]);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_iothub_server_set(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_module_t *module, void *conf)
{
    ngx_int_t   rc;
    ngx_conf_t  saved;

    saved = *cf;
    cf->ctx = hub->ctx;
    cf->cmd_type = NGX_HTTP_LOC_CONF;

    rc = ngx_http_iothub_directive(cf, module, conf);

    *cf = saved;

    return rc;
}


static ngx_int_t
ngx_http_iothub_server_set_all(ngx_conf_t *cf, void *conf,
    const char *const (*lines)[8])
{
    for ( /* void */ ; (*lines)[0]; lines++) {
        if (ngx_http_iothub_directive_set(cf, &ngx_http_proxy_module, conf,
                                          *lines)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_iothub_server_complete(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    ngx_int_t                      rc;
    ngx_str_t                      names[NGX_HTTP_IOTHUB_ENDPOINTS];
    ngx_uint_t                     i, shared;
    ngx_conf_t                     saved;
    ngx_http_upstream_srv_conf_t  *uscf;

    /*
     * Kept-alive connections are told apart by address, not by name: two
     * names behind one address need an upstream each.
     */

    shared = (hub->registry.host.len == hub->messages.host.len
              && ngx_strncasecmp(hub->registry.host.data,
                                 hub->messages.host.data,
                                 hub->registry.host.len)
                 == 0);

    for (i = 0; i < NGX_HTTP_IOTHUB_ENDPOINTS; i++) {

        if (i == NGX_HTTP_IOTHUB_REGISTRY || !shared) {

            names[i].data = ngx_pnalloc(cf->pool, hub->name.len
                                + sizeof("registry~.iothub.invalid"));
            if (names[i].data == NULL) {
                return NGX_ERROR;
            }

            names[i].len = ngx_sprintf(names[i].data, "%s%V%s%Z",
                               i == NGX_HTTP_IOTHUB_REGISTRY && !shared
                                   ? "registry~" : "",
                               &hub->name, NGX_HTTP_IOTHUB_UPSTREAM_SUFFIX)
                           - names[i].data - 1;

            uscf = ngx_http_iothub_server_upstream(cf, hub,
                       ngx_http_iothub_hub_endpoint(hub, i), &names[i]);
            if (uscf == NULL) {
                return NGX_ERROR;
            }

        } else {
            names[i] = names[NGX_HTTP_IOTHUB_REGISTRY];
        }
    }

    saved = *cf;
    cf->ctx = hub->ctx;
    cf->cmd_type = NGX_HTTP_LOC_CONF;

    rc = NGX_OK;

    for (i = 0; i < NGX_HTTP_IOTHUB_PROXIES && rc == NGX_OK; i++) {
        rc = ngx_http_iothub_server_endpoint(cf, hub, i,
                         &names[ngx_http_iothub_server_proxies[i].endpoint]);
    }

    *cf = saved;

    return rc;
}


static ngx_int_t
ngx_http_iothub_server_endpoint(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_uint_t which, ngx_str_t *upstream)
{
    ngx_http_module_t         *module;
    ngx_http_upstream_conf_t  *ucf;
    ngx_http_core_loc_conf_t  *clcf;

    if (ngx_http_iothub_server_set_all(cf, hub->proxy_defaults[which],
                                       ngx_http_iothub_server_defaults)
        != NGX_OK
        || ngx_http_iothub_directive_set(cf, &ngx_http_proxy_module,
                                         hub->proxy_defaults[which],
                         ngx_http_iothub_server_proxies[which].read_timeout)
           != NGX_OK
        || ngx_http_iothub_server_set_all(cf, hub->proxy[which],
                                          ngx_http_iothub_server_fixed)
           != NGX_OK
        || ngx_http_iothub_server_pass(cf, hub, which, upstream) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (hub->tls
        && ngx_http_iothub_server_tls(cf, hub, which) != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* the content handler is called for exchanges alone, by the module */

    clcf = hub->ctx->loc_conf[ngx_http_core_module.ctx_index];
    hub->proxy_handler = clcf->handler;
    clcf->handler = NULL;

    /* upstream is the first member of nginx's proxy configuration */

    ucf = hub->proxy[which];
    ucf->temp_path = &ngx_http_iothub_server_no_path;

    module = ngx_http_proxy_module.ctx;

    if (module->merge_loc_conf(cf, hub->proxy_defaults[which],
                               hub->proxy[which])
        != NGX_CONF_OK)
    {
        /* nginx does not always say where */

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "nginx refuses what hub \"%V\" has of proxy_*, "
                           "for the reason above", &hub->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* where to, and the Host header */

static ngx_int_t
ngx_http_iothub_server_pass(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_uint_t which, ngx_str_t *upstream)
{
    u_char                      *url, *host;
    const char                  *words[4];
    ngx_http_iothub_endpoint_t  *endpoint;

    endpoint = ngx_http_iothub_hub_endpoint(hub,
                              ngx_http_iothub_server_proxies[which].endpoint);

    url = ngx_pnalloc(cf->pool, sizeof("https://") + upstream->len);
    host = ngx_pnalloc(cf->pool, endpoint->host.len + 1);

    if (url == NULL || host == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(url, "%s%V%Z", hub->tls ? "https://" : "http://", upstream);
    ngx_sprintf(host, "%V%Z", &endpoint->host);

    words[0] = "proxy_set_header";
    words[1] = "Host";
    words[2] = (char *) host;
    words[3] = NULL;

    if (ngx_http_iothub_directive_set(cf, &ngx_http_proxy_module,
                                      hub->proxy[which], words)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    words[0] = "proxy_pass";
    words[1] = (char *) url;
    words[2] = NULL;

    return ngx_http_iothub_directive_set(cf, &ngx_http_proxy_module,
                                         hub->proxy[which], words);
}


static ngx_int_t
ngx_http_iothub_server_tls(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_uint_t which)
{
    u_char                      *name;
    const char                  *words[3];
    ngx_http_iothub_endpoint_t  *endpoint;

    endpoint = ngx_http_iothub_hub_endpoint(hub,
                              ngx_http_iothub_server_proxies[which].endpoint);

    name = ngx_pnalloc(cf->pool, endpoint->name.len + 1);
    if (name == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(name, "%V%Z", &endpoint->name);

    words[0] = "proxy_ssl_name";
    words[1] = (char *) name;
    words[2] = NULL;

    if (ngx_http_iothub_directive_set(cf, &ngx_http_proxy_module,
                                      hub->proxy[which], words)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    words[0] = "proxy_ssl_server_name";
    words[1] = "on";

    if (ngx_http_iothub_directive_set(cf, &ngx_http_proxy_module,
                                      hub->proxy[which], words)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    words[0] = "proxy_ssl_trusted_certificate";
    words[1] = ngx_http_iothub_server_ca_bundle();

    if (words[1] == NULL) {
        /* then nginx asks for proxy_ssl_trusted_certificate itself */
        return NGX_OK;
    }

    return ngx_http_iothub_directive_set(cf, &ngx_http_proxy_module,
                                         hub->proxy_defaults[which], words);
}


static const char *
ngx_http_iothub_server_ca_bundle(void)
{
    ngx_uint_t       i;
    ngx_file_info_t  fi;

    for (i = 0; ngx_http_iothub_server_ca_bundles[i]; i++) {
        if (ngx_file_info((u_char *) ngx_http_iothub_server_ca_bundles[i],
                          &fi)
            != NGX_FILE_ERROR)
        {
            return ngx_http_iothub_server_ca_bundles[i];
        }
    }

    return NULL;
}


/* as ngx_http_upstream() does for an upstream{} block */

static ngx_http_upstream_srv_conf_t *
ngx_http_iothub_server_upstream(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_endpoint_t *endpoint, ngx_str_t *name)
{
    ngx_url_t                      u;
    ngx_http_conf_ctx_t           *ctx;
    ngx_http_upstream_srv_conf_t  *uscf;

    ngx_memzero(&u, sizeof(ngx_url_t));
    u.host = *name;
    u.no_resolve = 1;
    u.no_port = 1;

    uscf = ngx_http_upstream_add(cf, &u, NGX_HTTP_UPSTREAM_CREATE
                                         |NGX_HTTP_UPSTREAM_WEIGHT
                                         |NGX_HTTP_UPSTREAM_MAX_CONNS
                                         |NGX_HTTP_UPSTREAM_MAX_FAILS
                                         |NGX_HTTP_UPSTREAM_FAIL_TIMEOUT
                                         |NGX_HTTP_UPSTREAM_DOWN
                                         |NGX_HTTP_UPSTREAM_BACKUP);
    if (uscf == NULL) {
        return NULL;
    }

    ctx = ngx_http_iothub_server_ctx(cf);
    if (ctx == NULL) {
        return NULL;
    }

    ctx->srv_conf[ngx_http_upstream_module.ctx_index] = uscf;
    uscf->srv_conf = ctx->srv_conf;

    uscf->servers = ngx_array_create(cf->pool, 1,
                                     sizeof(ngx_http_upstream_server_t));
    if (uscf->servers == NULL) {
        return NULL;
    }

    if (ngx_http_iothub_server_address(cf, hub, endpoint, uscf) != NGX_OK) {
        return NULL;
    }

    if (ngx_http_iothub_server_keepalive(cf, hub, ctx) != NGX_OK) {
        return NULL;
    }

    return uscf;
}


static ngx_int_t
ngx_http_iothub_server_address(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_http_iothub_endpoint_t *endpoint, ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_url_t                    u;
    ngx_http_upstream_server_t  *us;

    ngx_memzero(&u, sizeof(ngx_url_t));
    u.url = hub->address.len ? hub->address : endpoint->host;
    u.default_port = 443;
    u.no_resolve = 1;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in \"%V\" of hub \"%V\"",
                           u.err ? u.err : "no memory", &u.url, &hub->name);
        return NGX_ERROR;
    }

    if (u.naddrs == 0
        && ngx_http_iothub_resolve_add(cf, hub, uscf, &u) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!hub->tls && !ngx_http_iothub_server_loopback(&u)) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"tls off\" of hub \"%V\", which is not on "
                           "this machine: tokens and messages can be read "
                           "on the way", &hub->name);
    }

    us = ngx_array_push(uscf->servers);
    if (us == NULL) {
        return NGX_ERROR;
    }

    /* max_fails 0: a fault never takes an address of the hub out of use */

    ngx_memzero(us, sizeof(ngx_http_upstream_server_t));
    us->name = u.url;
    us->addrs = u.addrs;
    us->naddrs = u.naddrs;
    us->weight = 1;
    us->fail_timeout = 10;
    us->down = (u.err != NULL);

    return NGX_OK;
}


static ngx_uint_t
ngx_http_iothub_server_loopback(ngx_url_t *u)
{
    ngx_uint_t            i;
    struct sockaddr_in   *sin;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6  *sin6;
#endif

    for (i = 0; i < u->naddrs; i++) {

        switch (u->addrs[i].sockaddr->sa_family) {

        case AF_INET:
            sin = (struct sockaddr_in *) u->addrs[i].sockaddr;

            if ((ntohl(sin->sin_addr.s_addr) >> 24) != IN_LOOPBACKNET) {
                return 0;
            }

            break;

#if (NGX_HAVE_INET6)
        case AF_INET6:
            sin6 = (struct sockaddr_in6 *) u->addrs[i].sockaddr;

            if (!IN6_IS_ADDR_LOOPBACK(&sin6->sin6_addr)) {
                return 0;
            }

            break;
#endif

        default: /* AF_UNIX */
            break;
        }
    }

    return 1;
}


static ngx_int_t
ngx_http_iothub_server_keepalive(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub,
    ngx_http_conf_ctx_t *ctx)
{
    void                    *kcf;
    ngx_int_t                rc;
    ngx_str_t               *name, file;
    ngx_uint_t               i, n;
    ngx_conf_t               saved;
    ngx_http_iothub_kept_t  *kept;

    kcf = ctx->srv_conf[ngx_http_upstream_keepalive_module.ctx_index];
    kept = hub->keepalive.elts;

    saved = *cf;
    cf->ctx = ctx;
    cf->cmd_type = NGX_HTTP_UPS_CONF;

    /* errors name the line where the directive was read */

    file = cf->conf_file->file.name;
    n = cf->conf_file->line;
    rc = NGX_OK;

    for (i = 0; i < hub->keepalive.nelts && rc == NGX_OK; i++) {
        cf->args = kept[i].args;
        cf->conf_file->file.name = kept[i].file;
        cf->conf_file->line = kept[i].line;

        rc = ngx_http_iothub_directive(cf,
                                      &ngx_http_upstream_keepalive_module,
                                      kcf);
    }

    cf->conf_file->file.name = file;
    cf->conf_file->line = n;

    for (n = 0; ngx_http_iothub_server_kept[n][0] && rc == NGX_OK; n++) {

        for (i = 0; i < hub->keepalive.nelts; i++) {
            name = kept[i].args->elts;

            if (ngx_strcmp(name->data, ngx_http_iothub_server_kept[n][0])
                == 0)
            {
                break;
            }
        }

        if (i == hub->keepalive.nelts) {
            rc = ngx_http_iothub_directive_set(cf,
                                      &ngx_http_upstream_keepalive_module,
                                      kcf, ngx_http_iothub_server_kept[n]);
        }
    }

    *cf = saved;

    return rc;
}


ngx_int_t
ngx_http_iothub_server_init(ngx_conf_t *cf, ngx_http_iothub_hub_t *hub)
{
    void                     **loc_conf, *merged;
    ngx_uint_t                 i;
    ngx_http_upstream_conf_t  *ucf, *prev;
    ngx_http_core_loc_conf_t  *clcf;

    /* nothing of http{} may answer in an exchange's place */

    clcf = hub->ctx->loc_conf[ngx_http_core_module.ctx_index];
    clcf->error_pages = NULL;
    ngx_str_null(&clcf->post_action);

    merged = hub->ctx->loc_conf[ngx_http_proxy_module.ctx_index];
    prev = merged;

    for (i = 0; i < NGX_HTTP_IOTHUB_PROXIES; i++) {

        ucf = hub->proxy[i];
        ucf->temp_path = prev->temp_path;

        loc_conf = ngx_palloc(cf->pool,
                              sizeof(void *) * ngx_http_max_module);
        if (loc_conf == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(loc_conf, hub->ctx->loc_conf,
                   sizeof(void *) * ngx_http_max_module);
        loc_conf[ngx_http_proxy_module.ctx_index] = hub->proxy[i];

        hub->loc_conf[i] = loc_conf;
    }

    return ngx_http_iothub_resolve_init(cf, hub);
}
