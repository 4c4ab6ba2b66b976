package IoTHubTest::Cost;

# What a webhook costs: the instructions that nginx executes for it, as
# callgrind counts them.  They do not depend on what else the machine does, so
# they can be compared, and guarded, where seconds cannot.

use strict;
use warnings;

use IoTHubTest;
use IoTHubTest::HTTP qw(compose);

my $CONNECTIONS = 8;

# what an identity looks like in the hub's answer to a creation
my $IDENTITY = '{"deviceId":"d","generationId":"638000000000000000",'
    . '"etag":"MTIzNDU2Nzg5","connectionState":"Disconnected",'
    . '"status":"enabled","statusReason":null,"cloudToDeviceMessageCount":0,'
    . '"authentication":{"symmetricKey":{"primaryKey":"QUJD",'
    . '"secondaryKey":"QUJD"},"type":"sas"}}';

my $TOKEN = 'SharedAccessSignature sr=contoso.azure-devices.net&sig='
    . '7QNCH4XQGfpvJl6Vbe0gkdwQAeeHdULLvEJTGdCj9sM%3D&se=1999999999'
    . '&skn=webhooks';


# new(TEST): TEST has the nginx that counts; another is the hub

sub new {
    my ($class, $t) = @_;

    my $hub = IoTHubTest->new;

    $hub->nginx(<<"CONF", workers => 1, no_module => 1);
        access_log off;
        keepalive_requests 100000000;
        server {
            listen 127.0.0.1:%%PORT_8080%%;
            location / { return 204; }
            location ~ ^/devices/[^/]+\$ { return 200 '$IDENTITY'; }
        }
CONF

    $t->write_file('keys', "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU=\n");

    return bless { t => $t, hub => $hub, n => 0 }, $class;
}


sub stop { $_[0]{hub}->finish }


# An upstream as the module generates one, and the floor of all gateways: the
# body as it came goes to one URI of the hub, with one token.

sub proxy {
    my ($self, $calls) = @_;
    my $port = $self->{hub}->port;
    my $common = "proxy_http_version 1.1; proxy_pass_request_headers off;"
        . ' proxy_set_header Connection "";'
        . ' proxy_set_header Host contoso.azure-devices.net;'
        . ' proxy_set_header Content-Type application/json;'
        . " proxy_set_header Authorization '$TOKEN';";
    my $uri = '0123456789abcdef01234567/messages/events'
        . '?api-version=2021-04-12';

    return <<"CONF";
        access_log off;
        upstream hub { server 127.0.0.1:$port; keepalive 64; }
        server {
            listen 127.0.0.1:%%PORT_8080%%;
            location = /create {
                internal; $common proxy_method PUT;
                proxy_set_body '{"deviceId":"0123456789abcdef01234567"}';
                proxy_pass http://hub/devices/d/create;
            }
            location / {
                @{[ ($calls // 1) == 2 ? 'auth_request /create;' : '' ]}
                $common proxy_pass http://hub/devices/$uri;
            }
        }
CONF
}


# module(%options): register (missing), hubs (1), locations (1), http and
# location (text)

sub module {
    my ($self, %o) = @_;
    my $port = $self->{hub}->port;
    my $register = $o{register} // 'missing';

    my $hubs = join "\n", map {
        "iothub hub$_ { hostname hub$_.azure-devices.net;"
            . " address 127.0.0.1:$port; tls off; policy webhooks;"
            . " key_file %%TESTDIR%%/keys; register $register rate=off;"
            . ' zone 4m; }'
    } 1 .. $o{hubs} // 1;

    my $locations = join "\n", map {
        "location = /other$_ { iothub_pass hub1; }"
    } 2 .. $o{locations} // 1;

    return <<"CONF";
        access_log off;
        iothub_secret off;
        $hubs
        @{[ $o{http} // '' ]}
        server {
            listen 127.0.0.1:%%PORT_8080%%;
            $locations
            location / {
                iothub_pass @{[ $o{pass} // 'hub1' ]};
                @{[ $o{location} // '' ]}
            }
        }
CONF
}


# a Particle webhook of the I-th device

sub webhook {
    my ($i, $more) = @_;

    return compose(POST => '/hook', keepalive => 1,
        headers => { 'Content-Type' => 'application/json' },
        body => sprintf('{"event":"temp","data":"21.5","published_at":'
            . '"2026-01-01T00:00:00.000Z","coreid":"0123456789abcdef%08x",'
            . '"event_id":"event-%08x"%s}', $i, $i, $more // ''));
}


# per_webhook(CONF, %options): instructions, by the difference of two runs,
# so that the start of nginx does not count.  Options: devices (1000; 0: each
# webhook is of a new one), webhooks (1000), more (text in the body)

sub per_webhook {
    my ($self, $conf, %o) = @_;
    my $webhooks = $o{webhooks} // 1000;
    my $devices = $o{devices} // 1000;
    my @runs = (200, 200 + $webhooks);

    $_ = $self->_run($conf, $_, $devices, $o{more}) for @runs;

    return ($runs[1] - $runs[0]) / $webhooks;
}


sub _run {
    my ($self, $conf, $n, $devices, $more) = @_;
    my $t = $self->{t};
    my $dir = $t->dir;
    my $out = "$dir/callgrind." . ++$self->{n};

    $t->write_file('cost.conf', $t->_conf($conf, error_level => 'error',
                                          main => 'master_process off;'));
    unlink "$dir/nginx.pid";

    my $pid = $t->_spawn("$dir/cost.log", 'valgrind', '-q',
        '--tool=callgrind', "--callgrind-out-file=$out",
        $t->_command('-c', "$dir/cost.conf"));

    $t->_until(300, sub { -s "$dir/nginx.pid" })
        or die "nginx did not start: ", $t->read_file('cost.log');

    my @answers = $t->parallel(
        [map { webhook($devices ? $_ % $devices : $_ + 1_000_000, $more) }
         1 .. $n], $CONNECTIONS, keepalive => 1, timeout => 120);

    kill QUIT => $pid;
    waitpid $pid, 0;

    my $bad = grep { $_->{status} != 204 } @answers;

    die "$bad of $n webhooks failed, the first with ",
        (grep { $_->{status} != 204 } @answers)[0]{status}, "\n" if $bad;

    my ($total) = $t->read_file($out =~ s{.*/}{}r) =~ /^totals: (\d+)/m
        or die "callgrind counted nothing: ", $t->read_file('cost.log');

    return $total;
}

1;
