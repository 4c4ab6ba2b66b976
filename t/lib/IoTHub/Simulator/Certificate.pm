# Copyright (C) the ngx_http_iothub_module authors

# A certificate authority and a certificate of its own, by openssl.

package IoTHub::Simulator::Certificate;

use v5.36;
use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(make_certificates);

use constant DAYS => 3650;

my @NEW_KEY = qw(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256);


# Leaves ca.pem, leaf.pem and leaf.key in the directory.  What is there
# already stays, if it is good for the names, so that who was told to trust
# ca.pem goes on to do so after a restart.

sub make_certificates($dir, @hostnames) {
    my %file = map { $_ => "$dir/$_" }
        qw(ca.pem ca.key leaf.pem leaf.key leaf.csr leaf.cnf);

    return if -s $file{'ca.pem'} && -s $file{'leaf.key'}
        && !grep { !covers($file{'leaf.pem'}, $_) } @hostnames;

    -d $dir or mkdir $dir, 0700 or die "$dir: $!\n";

    my $names = join ',', map({ 'DNS:' . s/:\d+\z//r } @hostnames),
        'DNS:localhost', 'IP:127.0.0.1';

    open my $out, '>', $file{'leaf.cnf'} or die "$file{'leaf.cnf'}: $!\n";
    print $out "subjectAltName=$names\nbasicConstraints=CA:FALSE\n",
        "keyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n";
    close $out or die "$file{'leaf.cnf'}: $!\n";

    openssl(qw(req -x509), @NEW_KEY, '-days', DAYS,
        '-subj', '/CN=IoT Hub simulator CA',
        '-addext', 'keyUsage=critical,keyCertSign,cRLSign',
        '-keyout', $file{'ca.key'}, '-out', $file{'ca.pem'});
    openssl('req', @NEW_KEY, '-subj', '/CN=IoT Hub simulator',
        '-keyout', $file{'leaf.key'}, '-out', $file{'leaf.csr'});
    openssl(qw(x509 -req -sha256 -days), DAYS, '-in', $file{'leaf.csr'},
        '-CA', $file{'ca.pem'}, '-CAkey', $file{'ca.key'},
        '-CAcreateserial', '-CAserial', "$dir/ca.srl",
        '-extfile', $file{'leaf.cnf'}, '-out', $file{'leaf.pem'});
    return;
}


sub covers($certificate, $hostname) {
    return 0 unless -s $certificate;
    $hostname =~ s/:\d+\z//;
    open my $pipe, '-|', 'openssl', 'x509', '-noout', '-in', $certificate,
        '-checkhost', $hostname or return 0;
    my $said = join '', <$pipe>;
    close $pipe;
    return $said =~ /does match/;
}


sub openssl(@arguments) {
    open my $pipe, '-|', 'sh', '-c', 'exec openssl "$@" 2>&1', 'openssl',
        @arguments or die "openssl: $!\n";
    my $said = join '', <$pipe>;
    close $pipe or die "openssl $arguments[0] failed:\n$said";
    return;
}

1;
