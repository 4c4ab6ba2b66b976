#!/usr/bin/perl

# Signatures by bytes: runs build/unit/signature, which reads from its standard
# input the vectors that senders and standards have published.

use strict;
use warnings;

use FindBin;
use JSON::PP;

my $program = "$FindBin::Bin/../build/unit/signature";

-x $program or die "$program is missing: run t/run\n";


sub load {
    my ($file) = @_;

    open my $in, '<:raw', "$FindBin::Bin/$file" or die "$file: $!\n";

    return decode_json(do { local $/; <$in> });
}


# A vector is name, scheme, the key file, the three headers, the body, the time
# at which it was sent, and the parameters; texts in hex.

sub vector {
    my ($name, $scheme, $secret, $headers, $body, $now, @parameters) = @_;

    return join("\t", $name, $scheme,
        (map { unpack 'H*', $_ // '' } $secret, @$headers[0 .. 2], $body),
        $now, map { unpack 'H*', $_ } @parameters) . "\n";
}

my @vectors;

my $github = load('payloads/github.json')->{auth}{test_vector};

push @vectors, vector('GitHub', 'github', $github->{secret},
                      [$github->{header}], $github->{payload}, 0);

my $stripe = load('payloads/stripe.json');
my ($time) = $stripe->{auth}{test_vector} =~ /^t=(\d+)/;

push @vectors, vector('Stripe', 'stripe', $stripe->{auth}{secret},
                      [$stripe->{auth}{test_vector}],
                      $stripe->{requests}[0]{body_raw}, $time);

my $standard = load('payloads/standard-webhooks.json');
my ($svix) = grep { $_->{headers}{'svix-id'} } @{ $standard->{requests} };
my @values = @{ $svix->{headers} }{qw(svix-signature svix-id svix-timestamp)};

push @vectors, vector('Svix', 'standard-webhooks',
                      $standard->{auth}{secret_for_svix_vector}, \@values,
                      $svix->{body_raw}, $values[2],
                      'header=svix-signature');

for my $v (@{ load('vectors/signature.json')->{vectors} }) {
    push @vectors, vector($v->{name}, 'hmac-sha256',
        $v->{secret} // pack('H*', $v->{secret_hex}), [$v->{header}],
        $v->{body} // pack('H*', $v->{body_hex}), 0, @{ $v->{parameters} });
}

open my $unit, '|-', $program or die "$program: $!\n";
print $unit @vectors;
close $unit;

exit($? >> 8 || ($? ? 255 : 0));
